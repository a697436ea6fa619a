/** Which engine serves a request. */
import { AppError } from "../errors.ts";
import { foreignFormat } from "../oci/foreign-formats.ts";
import type { Backend, Machine, Mode, ModelTraits, RunnableModel } from "./backend.ts";

export interface ChoiceRequest {
  readonly model: Pick<RunnableModel, "name" | "format">;
  readonly mode: Mode;
  /** What is known of it besides its format. */
  readonly traits?: ModelTraits | undefined;
  /** Wins over every preference; it is an error if it cannot serve the model. */
  readonly backend?: string | undefined;
  /** Default: this one. */
  readonly machine?: Machine | undefined;
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
  const able: Backend[] = [];
  for (const backend of backends.filter((one) => problem(one, request) === undefined)) {
    if (backend.onlyWhereInstalled !== true || (await isInstalled(backend.name)))
      able.push(backend);
  }
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

function problem(backend: Backend, request: ChoiceRequest): string | undefined {
  const { model, mode, machine = process } = request;
  if (!backend.formats.includes(model.format)) {
    return `${backend.name} does not read ${model.format} models`;
  }
  const { traits } = request;
  const unreadable = traits === undefined ? undefined : backend.unreadable?.(traits);
  if (unreadable !== undefined) return `${backend.name} does not read ${unreadable}`;
  if (!backend.modes.includes(mode)) return `${backend.name} does not offer ${mode}`;
  const reason = backend.problem?.(machine);
  return reason === undefined ? undefined : `${backend.name} does not run here: ${reason}`;
}

function unsupported(request: ChoiceRequest, backends: readonly Backend[]): AppError {
  const { model, mode, machine = process } = request;
  const readers = backends.filter(({ formats }) => formats.includes(model.format));
  const elsewhere = readers.filter(({ modes }) => modes.includes(mode));
  const reason =
    elsewhere.length === 0
      ? `no engine offers ${mode} for ${model.format} models`
      : elsewhere.map((one) => problem(one, request) ?? `${one.name} is not installed`).join("; ");
  const usable = backends.filter(
    (one) => one.modes.includes(mode) && !one.problem?.(machine) && one.onlyWhereInstalled !== true,
  );
  const missing = elsewhere.find((one) => problem(one, request) === undefined);
  const formats = new Set(usable.flatMap((backend) => backend.formats));
  const others =
    formats.size === 0 ? "" : `Use a model in one of these formats: ${[...formats].join(", ")}.`;
  const way = nearestWay(request, readers);
  return new AppError("unsupported_model", `cannot run \`${model.name}\`: ${reason}`, {
    hint: [installHint(missing), way, others].filter(Boolean).join(" ") || undefined,
    details: { format: model.format, mode, backends: backends.map(({ name }) => name) },
  });
}

function installHint(backend: Backend | undefined): string | undefined {
  if (backend === undefined) return undefined;
  return `Install it with \`tug install-runner --backend ${backend.name}\`.`;
}

const OWN_WAY = "Configure an engine for it in `[engines]` of config.toml.";

/** What those have who come with what no engine reads. */
function nearestWay(
  { model, traits }: ChoiceRequest,
  readers: readonly Backend[],
): string | undefined {
  if (readers.length === 0) return foreignFormat(model.format)?.way ?? OWN_WAY;
  const { quantization } = traits ?? {};
  if (quantization === undefined) return undefined;
  return foreignFormat(quantization)?.way ?? "Take the same model as GGUF: llama.cpp runs it.";
}
