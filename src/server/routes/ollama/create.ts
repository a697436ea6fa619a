/**
 * Of Ollama's API: making a model of another one, or of uploaded files.
 *
 * @see https://github.com/ollama/ollama/blob/main/docs/api.md#create-a-model
 */
import type { Context, Hono } from "hono";
import type * as v from "valibot";
import { AppError } from "../../../errors.ts";
import type { CreateModelRequest, NamedBlobs } from "../../../models/create-model.ts";
import { type Digest, tryParseDigest } from "../../../oci/digest.ts";
import { parseReference, type Reference } from "../../../oci/reference.ts";
import type { StoredModel } from "../../../store/store.ts";
import type { AppDeps, AppEnv, WorkOptions } from "../../deps.ts";
import { parseBody } from "../../request-body.ts";
import type { ModelRoutesDeps } from "../models.ts";
import { pullThrough } from "../transfers.ts";
import { findModel, pullSource } from "./names.ts";
import { answerWithStatuses, sayStatus, type StatusOptions } from "./progress.ts";
import { OllamaCreateRequest, requireModels, requireName } from "./requests.ts";

/** Licences, a template, a system prompt and turns are texts that people write. Bytes. */
const MAX_CREATE_BYTES = 8 * 1024 * 1024;
/** A model of single tensors has thousands; one of shards has hundreds. */
const MAX_FILES = 4096;
const MAX_LICENSES = 32;

const STATUSES: Omit<StatusOptions, "stream"> = { verb: "pulling", ending: ["writing manifest"] };

export function addOllamaCreateRoute(app: Hono<AppEnv>, deps: AppDeps): void {
  app.post("/api/create", (c) => create(c, deps));
}

// --- internal ---

type Body = v.InferOutput<typeof OllamaCreateRequest>;

/** What is to be made, before the base is there. */
type Draft = Omit<CreateModelRequest, "base"> & {
  readonly source: { readonly from: string } | { readonly files: NamedBlobs };
  readonly warnings: readonly string[];
};

async function create(c: Context<AppEnv>, deps: AppDeps): Promise<Response> {
  const { value: body } = await parseBody(c.req.raw, OllamaCreateRequest, {
    maxBytes: MAX_CREATE_BYTES,
  });
  const models = requireModels(deps);
  const draft = await toDraft(body);
  const options = { ...STATUSES, stream: body.stream ?? true };
  return answerWithStatuses(c, options, (work) => carryOut(models, draft, work));
}

async function carryOut(
  models: ModelRoutesDeps,
  { source, warnings, ...request }: Draft,
  work: WorkOptions,
): Promise<unknown> {
  for (const message of warnings) work.onProgress({ type: "warning", message });
  const base = "from" in source ? { model: await findBase(models, source.from, work) } : source;
  sayStatus(work, "reading model metadata");
  const { createModel } = await import("../../../models/create-model.ts");
  const model = await createModel(models.store, { ...request, base }, work);
  const old =
    "model" in base ? new Set(base.model.manifest.layers.map(({ digest }) => digest)) : undefined;
  for (const { digest } of [...model.manifest.layers, model.manifest.config]) {
    sayStatus(
      work,
      `${old?.has(digest) === true ? "using existing" : "creating new"} layer ${digest}`,
    );
  }
  return model.digest;
}

async function findBase(
  models: ModelRoutesDeps,
  from: string,
  work: WorkOptions,
): Promise<StoredModel> {
  try {
    return await findModel(models.store, from, work);
  } catch (error) {
    if (!(error instanceof AppError) || error.code !== "model_not_found") throw error;
  }
  sayStatus(work, "pulling manifest");
  const { id } = await pullThrough(models, { from: await pullSource(models.store, from) }, work);
  return models.store.resolve(id);
}

async function toDraft(body: Body): Promise<Draft> {
  const reference = toTarget(requireName(body));
  if (body.quantize || body.quantization) throw noQuantizing();
  const { contextTokens, parameters, warnings } = await toParameters(body.parameters ?? {});
  const messages = (body.messages ?? []).map(({ role, content }, index) => {
    if (ROLES.has(role)) return { role, content };
    throw invalid(`\`messages.${index}.role\` must be system, user or assistant`);
  });
  return {
    reference,
    source: toSource(body),
    adapters: toBlobs("adapters", body.adapters ?? {}),
    licenses: toLicenses(body.license),
    template: toTemplate(body.template ?? ""),
    defaults: {
      ...(body.system ? { system: body.system } : {}),
      ...(Object.keys(parameters).length === 0 ? {} : { parameters }),
      ...(messages.length === 0 ? {} : { messages }),
    },
    contextTokens,
    warnings,
  };
}

const ROLES: ReadonlySet<string> = new Set(["system", "user", "assistant"]);

function toTarget(name: string): Reference {
  const reference = parseReference(name);
  if (reference.digest === undefined) return reference;
  throw new AppError("invalid_reference", "cannot create a model: a name has no digest yet", {
    hint: "Leave out what follows `@`.",
  });
}

function toSource({ from, files }: Body): Draft["source"] {
  const blobs = toBlobs("files", files ?? {});
  const hasFiles = Object.keys(blobs).length > 0;
  if (from && hasFiles) throw invalid("`from` and `files` exclude each other");
  if (from) return { from: from.trim() };
  if (hasFiles) return { files: blobs };
  throw invalid("one of `from` and `files` is required");
}

function toBlobs(field: string, named: Readonly<Record<string, string>>): NamedBlobs {
  const entries = Object.entries(named);
  if (entries.length > MAX_FILES) throw invalid(`\`${field}\` has more than ${MAX_FILES} files`);
  return Object.fromEntries(
    entries.map(([name, text]): [string, Digest] => {
      const digest = tryParseDigest(text.replace(/^sha256-/, "sha256:"));
      if (digest !== undefined) return [name, digest];
      throw invalid(`\`${field}\` has \`${text.slice(0, 80)}\`, which is not a digest`);
    }),
  );
}

function toLicenses(license: Body["license"]): readonly string[] {
  const texts = typeof license === "string" ? [license] : (license ?? []);
  const said = [...new Set(texts)].filter((text) => text.trim() !== "");
  if (said.length > MAX_LICENSES) throw invalid(`\`license\` has more than ${MAX_LICENSES} texts`);
  return said;
}

/** How templates in Go's language, which is Ollama's, begin an expression. */
const GO_EXPRESSION =
  /\{\{-?\s*(?:\.|\$|(?:if|range|else|with|end)\b|(?:define|block|template)\s+")/;

/** Engines speak Jinja; another language's template would only be text that every prompt gets. */
function toTemplate(template: string): string | undefined {
  if (template.trim() === "") return undefined;
  const isJinja = /\{[%#]/.test(template) || !GO_EXPRESSION.test(template);
  if (isJinja) return template;
  throw new AppError(
    "invalid_request",
    "cannot use `template`: it is written in Ollama's language",
    { hint: "Leave it out, so that the model's own template is used, or give one in Jinja." },
  );
}

/** @throws invalid_request for a parameter that is known and has a value it cannot have */
async function toParameters(said: Readonly<Record<string, unknown>>): Promise<{
  contextTokens: number | undefined;
  parameters: Readonly<Record<string, unknown>>;
  warnings: readonly string[];
}> {
  const { ignoredWarning, readParameters } = await import("../../../models/create-model.ts");
  const read = readParameters(new TextEncoder().encode(JSON.stringify(said)));
  const wrong = read.ignored.find((name) => KNOWN.has(name));
  if (wrong !== undefined) throw invalid(`\`parameters.${wrong}\` has a value it cannot have`);
  return { ...read, warnings: ignoredWarning(read.ignored) };
}

/** Parameters that mean something here, in Modelfiles' words. */
const KNOWN: ReadonlySet<string> = new Set([
  "num_ctx",
  "num_predict",
  "num_keep",
  "stop",
  "temperature",
  "top_k",
  "top_p",
  "min_p",
  "typical_p",
  "repeat_penalty",
  "repeat_last_n",
  "presence_penalty",
  "frequency_penalty",
  "mirostat",
  "mirostat_tau",
  "mirostat_eta",
  "seed",
]);

function noQuantizing(): AppError {
  return new AppError("not_supported", "cannot quantise a model: nothing here does that", {
    hint: "Leave out `quantize`, and give weights that are quantised already.",
  });
}

function invalid(reason: string): AppError {
  return new AppError("invalid_request", `cannot read the request: ${reason}`);
}
