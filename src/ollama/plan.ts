/**
 * The Ollama library as a source of models. Its registry speaks the OCI protocol with manifests of its own kind, whose
 * layers hold what we need: weights, licences, and small texts that say how the model wants to be run.
 *
 * @see https://github.com/ollama/ollama/blob/main/docs/modelfile.md
 */
import { AppError } from "../errors.ts";
import { printable } from "../http/host.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import type { Digest } from "../oci/digest.ts";
import { parseManifest } from "../oci/manifest.ts";
import type { DefaultMessage, PackagedDefaults } from "../oci/model-defaults.ts";
import type { FetchedManifest, Registry, Repository } from "../oci/registry.ts";
import type { PlannedFile, SourcePlan } from "../transfer/plan.ts";
import { type OllamaLayers, sortLayers, unsupported } from "./layers.ts";
import {
  OLLAMA_REGISTRY,
  type OllamaName,
  formatOllamaName,
  ollamaPage,
  ollamaReference,
} from "./name.ts";
import {
  ignoredWarning,
  readMessages,
  readObject,
  readParameters,
  readSystem,
} from "./parameters.ts";

/** Configs have some hundred bytes; with a draft model's own config in them some thousand. */
const MAX_CONFIG_BYTES = 1024 * 1024;
/** Parameters, a system prompt, first turns: texts that a person wrote, which become an annotation of our manifest. Bytes. */
const MAX_TEXT_BYTES = 256 * 1024;
/** A manifest tells no time, and what the same bytes become must not depend on when they were pulled. */
const CREATED = "1970-01-01T00:00:00Z";
const SOURCE = "org.opencontainers.image.source";
const REVISION = "org.opencontainers.image.revision";

export { ollamaReference, parseOllamaName } from "./name.ts";

export interface OllamaOptions {
  readonly registry: Pick<Registry, "repository">;
  readonly signal: AbortSignal;
}

/**
 * Fetches the manifest and the small texts of a model, and says which files it is made of. No weights are read.
 *
 * @throws not_found, unauthorized, unsupported_model (runs in Ollama's cloud, or is no GGUF), invalid_model_file,
 *         request_too_large, digest_mismatch, registry_unavailable, offline, cancelled
 */
export async function planOllama(name: OllamaName, options: OllamaOptions): Promise<SourcePlan> {
  const { signal } = options;
  const repository = openRepository(name, options);
  const { bytes, descriptor } = await fetchManifest(repository, name, signal);
  const { config, layers } = parseManifest(bytes);
  const fetchText = (layer: Descriptor, maxBytes = MAX_TEXT_BYTES): Promise<Uint8Array> =>
    repository.fetchBlob(layer, { signal, maxBytes });
  const facts = readObject(await fetchText(config, MAX_CONFIG_BYTES), "config");
  refuseRemote(facts, name);
  refuseFormat(facts, name);
  const sorted = sortLayers(layers, name);
  const { files, warnings } = withoutForeignDraft(sorted, facts);
  const texts = await readTexts(sorted, fetchText);
  return {
    reference: ollamaReference(name),
    layout: "gguf",
    files: files.map(({ role, path, layer }): PlannedFile => {
      const { digest, size } = layer;
      return { role, path, digest, size, sources: repository.blobSources(digest) };
    }),
    created: CREATED,
    annotations: { [SOURCE]: ollamaPage(name), [REVISION]: descriptor.digest },
    ...(texts.contextTokens === undefined ? {} : { contextTokens: texts.contextTokens }),
    ...(texts.defaults === undefined ? {} : { defaults: texts.defaults }),
    warnings: [...sorted.warnings, ...warnings, ...texts.warnings],
  };
}

/**
 * The digest of the manifest that the tag names now, in one exchange: it differs from a pulled model's
 * `org.opencontainers.image.revision` if there is something new.
 *
 * @throws not_found, unauthorized, registry_unavailable, offline, cancelled
 */
export async function ollamaRevision(name: OllamaName, options: OllamaOptions): Promise<Digest> {
  const repository = openRepository(name, options);
  return (await fetchManifest(repository, name, options.signal)).descriptor.digest;
}

// --- internal ---

interface Texts {
  readonly contextTokens: number | undefined;
  readonly defaults: PackagedDefaults | undefined;
  readonly warnings: readonly string[];
}

function openRepository({ namespace, model }: OllamaName, { registry }: OllamaOptions): Repository {
  return registry.repository({ registry: OLLAMA_REGISTRY, repository: `${namespace}/${model}` });
}

/** Its answers to what is not there are those of any registry; what to do about it is not. */
async function fetchManifest(
  repository: Repository,
  name: OllamaName,
  signal: AbortSignal,
): Promise<FetchedManifest> {
  try {
    return await repository.fetchManifest(name.tag, { signal });
  } catch (cause) {
    if (!(cause instanceof AppError)) throw cause;
    const isMissing = cause.code === "not_found" || cause.code === "model_not_found";
    if (!isMissing && cause.code !== "unauthorized" && cause.code !== "forbidden") throw cause;
    const reason = isMissing
      ? "the Ollama library has no such model or tag"
      : "the Ollama library does not give it to everybody";
    throw new AppError(
      isMissing ? "not_found" : cause.code,
      `cannot pull \`${formatOllamaName(name)}\`: ${reason}`,
      { hint: `See ${ollamaPage(name)}/tags for what there is.`, cause },
    );
  }
}

/** Models that run in Ollama's cloud have a name here, and nothing else. */
function refuseRemote(facts: Readonly<Record<string, unknown>>, name: OllamaName): void {
  const host = text(facts["remote_host"]);
  if (host === undefined && text(facts["remote_model"]) === undefined) return;
  throw unsupported(
    name,
    `it runs on ${host === undefined ? "another machine" : `\`${printable(host)}\``} and has no weights to pull`,
    `Choose a tag without \`cloud\`: see ${ollamaPage(name)}/tags.`,
  );
}

function refuseFormat(facts: Readonly<Record<string, unknown>>, name: OllamaName): void {
  const format = text(facts["model_format"])?.toLowerCase() ?? "gguf";
  if (format === "gguf") return;
  throw unsupported(name, `its weights are in the format \`${printable(format)}\`, not GGUF`);
}

/** A draft model may be in another format than the model itself. */
function withoutForeignDraft(
  { files }: OllamaLayers,
  facts: Readonly<Record<string, unknown>>,
): Pick<OllamaLayers, "files" | "warnings"> {
  const draft = facts["draft"] as { readonly model_format?: unknown } | null | undefined;
  const format = text(draft?.model_format)?.toLowerCase() ?? "gguf";
  const isForeign = format !== "gguf" && files.some(({ role }) => role === "draft");
  if (!isForeign) return { files, warnings: [] };
  return {
    files: files.filter(({ role }) => role !== "draft"),
    warnings: [`left out the draft model: its format is \`${printable(format)}\`, not GGUF`],
  };
}

async function readTexts(
  { params, system, messages }: OllamaLayers,
  fetchText: (layer: Descriptor) => Promise<Uint8Array>,
): Promise<Texts> {
  const readText = async <T>(
    layer: Descriptor | undefined,
    parse: (bytes: Uint8Array) => T,
  ): Promise<T | undefined> => (layer === undefined ? undefined : parse(await fetchText(layer)));
  const taken = await readText(params, readParameters);
  return {
    contextTokens: taken?.contextTokens,
    defaults: toDefaults({
      parameters: taken?.parameters ?? {},
      system: await readText(system, readSystem),
      messages: (await readText(messages, readMessages)) ?? [],
    }),
    warnings: ignoredWarning(taken?.ignored ?? []),
  };
}

/** Without what says nothing. */
function toDefaults({
  system,
  parameters,
  messages,
}: {
  readonly system: string | undefined;
  readonly parameters: Readonly<Record<string, unknown>>;
  readonly messages: readonly DefaultMessage[];
}): PackagedDefaults | undefined {
  const defaults: PackagedDefaults = {
    ...(system === undefined ? {} : { system }),
    ...(Object.keys(parameters).length === 0 ? {} : { parameters }),
    ...(messages.length === 0 ? {} : { messages }),
  };
  return Object.keys(defaults).length === 0 ? undefined : defaults;
}

function text(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" ? value : undefined;
}
