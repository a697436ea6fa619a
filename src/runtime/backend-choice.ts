/** Which engine serves a request. */
import { AppError } from "../errors.ts";
import type { Backend, Mode, RunnableModel } from "./backend.ts";

export interface ChoiceRequest {
  readonly model: Pick<RunnableModel, "name" | "format">;
  readonly mode: Mode;
  /** Wins over every preference; it is an error if it cannot serve the model. */
  readonly backend?: string | undefined;
}

/**
 * By format and mode; among several the first that is installed, else the first.
 *
 * @throws backend_not_found, unsupported_model
 */
export async function chooseBackend(
  request: ChoiceRequest,
  backends: readonly Backend[],
  isInstalled: (name: string) => Promise<boolean>,
): Promise<Backend> {
  if (request.backend !== undefined) return named(request.backend, request, backends);
  const able = backends.filter((backend) => problem(backend, request) === undefined);
  const [first, ...others] = able;
  if (first === undefined) throw unsupported(request, backends);
  if (others.length === 0) return first;
  for (const backend of able) if (await isInstalled(backend.name)) return backend;
  return first;
}

// --- internal ---

function named(name: string, request: ChoiceRequest, backends: readonly Backend[]): Backend {
  const backend = backends.find((one) => one.name === name);
  if (backend === undefined) {
    throw new AppError(
      "backend_not_found",
      `cannot use backend \`${name}\`: there is none of that name`,
      {
        hint: `Choose one of: ${backends.map((one) => one.name).join(", ")}.`,
      },
    );
  }
  const reason = problem(backend, request);
  if (reason === undefined) return backend;
  throw new AppError("unsupported_model", `cannot run \`${request.model.name}\`: ${reason}`, {
    hint: "Leave the backend out and let Tug choose one.",
  });
}

function problem(backend: Backend, { model, mode }: ChoiceRequest): string | undefined {
  if (!backend.formats.includes(model.format)) {
    return `${backend.name} does not read ${model.format} models`;
  }
  if (!backend.modes.includes(mode)) return `${backend.name} does not offer ${mode}`;
  return undefined;
}

function unsupported(request: ChoiceRequest, backends: readonly Backend[]): AppError {
  const { model, mode } = request;
  const reason = `no engine offers ${mode} for ${model.format} models`;
  const formats = new Set(
    backends.filter(({ modes }) => modes.includes(mode)).flatMap((b) => b.formats),
  );
  return new AppError("unsupported_model", `cannot run \`${model.name}\`: ${reason}`, {
    hint:
      formats.size === 0
        ? undefined
        : `Use a model in one of these formats: ${[...formats].join(", ")}.`,
    details: { format: model.format, mode, backends: backends.map(({ name }) => name) },
  });
}
