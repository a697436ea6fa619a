/**
 * The bodies of requests about models, as Ollama's API documents them. Other members are ignored, as there.
 *
 * @see https://github.com/ollama/ollama/blob/main/docs/api.md
 */
import * as v from "valibot";
import { AppError } from "../../../errors.ts";
import type { AppDeps } from "../../deps.ts";
import { NAMES } from "../../translate/ollama/requests.ts";
import type { ModelRoutesDeps } from "../models.ts";

/** Addresses with signed queries have some thousand characters. */
const MAX_NAME = 8192;

const TEXT = v.nullish(v.string());
const FLAG = v.nullish(v.boolean());

/** Where the name does not say it. */
function text(meaning: string) {
  return v.nullish(v.pipe(v.string(), v.description(meaning)));
}

function flag(meaning: string) {
  return v.nullish(v.pipe(v.boolean(), v.description(meaning)));
}

function files(meaning: string) {
  return v.nullish(v.pipe(v.record(v.string(), v.string()), v.description(meaning)));
}

export const OllamaShowRequest = v.looseObject({
  ...NAMES,
  verbose: flag("With the arrays of `model_info`."),
});

const TRANSFER = {
  ...NAMES,
  insecure: flag("The registry may speak http, or have any certificate."),
  stream: flag("Default: true."),
};

export const OllamaPullRequest = v.looseObject(TRANSFER);

export const OllamaPushRequest = v.looseObject(TRANSFER);

export const OllamaDeleteRequest = v.looseObject(NAMES);

export const OllamaCopyRequest = v.looseObject({
  source: v.string(),
  destination: v.string(),
});

const MESSAGE = v.looseObject({ role: v.string(), content: v.string() });

export const OllamaCreateRequest = v.looseObject({
  ...NAMES,
  from: text("A model; it is pulled if it is not here."),
  files: files("File names, and digests of blobs that were uploaded."),
  adapters: files("As `files`, of LoRA adapters."),
  template: text("Jinja. Ollama's own template language is refused."),
  license: v.nullish(v.union([v.string(), v.array(v.string())])),
  system: TEXT,
  parameters: v.nullish(v.record(v.string(), v.unknown())),
  messages: v.nullish(v.array(MESSAGE)),
  quantize: text("Refused: nothing here quantises."),
  quantization: TEXT,
  stream: FLAG,
});

/** The one thing that all requests say. @throws invalid_request if they do not; invalid_reference */
export function requireName(body: {
  readonly model?: string | null | undefined;
  readonly name?: string | null | undefined;
}): string {
  const name = (body.model || body.name || "").trim();
  if (name.length > MAX_NAME) throw tooLong();
  if (name !== "") return name;
  throw new AppError("invalid_request", "cannot read the request: `model` is required");
}

/** @throws not_supported in a process that has no store to work with */
export function requireModels({ modelWork }: Pick<AppDeps, "modelWork">): ModelRoutesDeps {
  if (modelWork !== undefined) return modelWork;
  throw new AppError("not_supported", "cannot work on models: there is no model store here");
}

// --- internal ---

function tooLong(): AppError {
  return new AppError(
    "invalid_reference",
    `cannot read model name: it has more than ${MAX_NAME} characters`,
  );
}
