/** What a model can do, read from what it is made of: its header, its chat template, its projector. */
import { AppError } from "../errors.ts";
import { isProjector, isTemplate } from "../oci/media-types.ts";
import type { ModelLayer } from "../oci/model-layers.ts";
import type { HeaderValue } from "../store/gguf-parse.ts";
import type { Store, StoredModel } from "../store/store.ts";
import { type ConfigFacts, readConfigFacts, weightLayers } from "./config.ts";
import { baseName } from "./file-classes.ts";

/** In Ollama's words; a reranking model has none of them. */
export type Capability =
  | "completion"
  | "tools"
  | "insert"
  | "vision"
  | "audio"
  | "embedding"
  | "thinking";

/** Values of a header; null for an array, or a text that nobody reads, which was left out. */
export type HeaderInfo = Readonly<Record<string, HeaderValue | null>>;

export interface ModelProfile {
  readonly capabilities: readonly Capability[];
  /** Jinja; null if the model brings none along. */
  readonly template: string | null;
  /** The header of the weights, without its arrays; empty for what is no GGUF. */
  readonly info: HeaderInfo;
  /** As `info`, of the projector. */
  readonly projectorInfo: HeaderInfo | null;
}

/** What a judgement is made of. */
export interface ProfileParts {
  readonly header: ReadonlyMap<string, HeaderValue>;
  readonly template: string | null;
  /** Undefined without a projector. */
  readonly projector: ReadonlyMap<string, HeaderValue> | undefined;
}

/** A profile has some 30 KB, most of it the template. */
const MAX_REMEMBERED = 64;
/** Of their texts together: anybody may publish a header that is all text. Characters. */
const MAX_REMEMBERED_LENGTH = 8 * 1024 * 1024;
/** Of one value in a header: templates, the longest there are, have some 20,000. Characters. */
const MAX_VALUE_LENGTH = 1024 * 1024;
/** As for templates that are packaged. Bytes. */
const MAX_TEMPLATE_BYTES = 4 * 1024 * 1024;

/** Reads a header of some megabytes once a model; models never change, so that what was read stays true. */
export class ModelProfiles {
  readonly #store: Store;
  readonly #known = new Map<string, Promise<ModelProfile | undefined>>();
  readonly #lengths = new Map<string, number>();

  constructor(store: Store) {
    this.#store = store;
  }

  /**
   * @param modelId `sha256:<hex>` of the manifest
   * @returns undefined if it is not in the store
   * @throws blob_not_found, digest_mismatch, invalid_model_file for one that is damaged
   */
  of(modelId: string): Promise<ModelProfile | undefined> {
    const known = this.#known.get(modelId);
    if (known !== undefined) return known;
    const reading = this.#read(modelId);
    if (this.#known.size >= MAX_REMEMBERED) this.#forgetOldest();
    this.#known.set(modelId, reading);
    reading.then(
      (profile) => (profile === undefined ? this.#forget(modelId) : this.#weigh(modelId, profile)),
      () => this.#forget(modelId),
    );
    return reading;
  }

  /** Whoever else asks waits for the same reading, which therefore is nobody's to cancel. */
  async #read(modelId: string): Promise<ModelProfile | undefined> {
    const model = await this.#find(modelId);
    const { signal } = new AbortController();
    return model === undefined ? undefined : readProfile(this.#store, model, { signal });
  }

  async #find(modelId: string): Promise<StoredModel | undefined> {
    try {
      return await this.#store.resolve(modelId);
    } catch (error) {
      if (error instanceof AppError && error.code === "model_not_found") return undefined;
      throw error;
    }
  }

  /** The newest stays, however large it is: it is being used. */
  #weigh(modelId: string, profile: ModelProfile): void {
    if (!this.#known.has(modelId)) return;
    this.#lengths.set(modelId, lengthOf(profile));
    const total = (): number => [...this.#lengths.values()].reduce((sum, each) => sum + each, 0);
    while (this.#known.size > 1 && total() > MAX_REMEMBERED_LENGTH) this.#forgetOldest();
  }

  #forgetOldest(): void {
    const [oldest] = this.#known.keys();
    if (oldest !== undefined) this.#forget(oldest);
  }

  #forget(modelId: string): void {
    this.#known.delete(modelId);
    this.#lengths.delete(modelId);
  }
}

/** The header of the weights with its arrays, read anew: a vocabulary is too large to be remembered. */
export async function readFullInfo(
  store: Store,
  model: StoredModel,
  options: { readonly signal: AbortSignal },
): Promise<HeaderInfo> {
  const facts = await readConfigFacts(store, model);
  return Object.fromEntries((await readWeightHeader(store, facts, options)).header);
}

/** Pure. */
export function judge({ header, template, projector }: ProfileParts): readonly Capability[] {
  const architecture = textAt(header, "general.architecture");
  const pooling = header.get(`${architecture}.pooling_type`);
  // llama.h: 0 pools nothing, 4 ranks.
  if (typeof pooling === "number" && pooling > 0) return pooling === RANKING ? [] : ["embedding"];
  if (architecture !== null && ENCODERS.has(architecture)) return ["embedding"];
  const code = template === null ? "" : expressionsOf(template);
  const found: readonly [Capability, boolean][] = [
    ["completion", true],
    ["vision", projector !== undefined && projector.get("clip.has_vision_encoder") !== false],
    ["audio", projector?.get("clip.has_audio_encoder") === true],
    ["tools", /\btools\b/.test(code)],
    ["insert", fillsIn(header)],
    ["thinking", template !== null && (THINKING_CODE.test(code) || THINKING_TEXT.test(template))],
  ];
  return found.filter(([, has]) => has).map(([name]) => name);
}

// --- internal ---

const TEMPLATE_KEY = "tokenizer.chat_template";
const RANKING = 4;

/** Older files of them say nothing of pooling. */
const ENCODERS: ReadonlySet<string> = new Set([
  "bert",
  "nomic-bert",
  "nomic-bert-moe",
  "jina-bert-v2",
  "jina-bert-v3",
  "modern-bert",
  "neo-bert",
  "gemma-embedding",
  "t5encoder",
]);

/** Variables by which templates are told to think, or told what was thought. */
const THINKING_CODE =
  /\b(?:enable_thinking|thinking|reasoning_content|reasoning_effort|thinking_budget)\b/;
/** What models put around their thoughts. */
const THINKING_TEXT =
  /<\/?think(?:ing)?>|\[THINK\]|<\|channel\|>analysis|<seed:think>|<\|START_THINKING\|>/;

/** @see llama.cpp gguf-py/gguf/constants.py (`fim_*`; before that `prefix`, `suffix`) */
const FIM_KEYS: readonly (readonly [string, string])[] = [
  ["tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.fim_suf_token_id"],
  ["tokenizer.ggml.prefix_token_id", "tokenizer.ggml.suffix_token_id"],
];
/** Where no key says it, llama.cpp knows these by their text. @see llama-vocab.cpp */
const FIM_TOKENS: readonly (readonly [string, string])[] = [
  ["<|fim_prefix|>", "<|fim_suffix|>"],
  ["<fim-prefix>", "<fim-suffix>"],
  ["<fim_prefix>", "<fim_suffix>"],
  ["<｜fim▁begin｜>", "<｜fim▁hole｜>"],
  ["<PRE>", "<SUF>"],
  ["▁<PRE>", "▁<SUF>"],
  ["<|code_prefix|>", "<|code_suffix|>"],
];

function fillsIn(header: ReadonlyMap<string, HeaderValue>): boolean {
  if (FIM_KEYS.some((pair) => pair.every((key) => header.has(key)))) return true;
  const tokens = header.get("tokenizer.ggml.tokens");
  if (!Array.isArray(tokens)) return false;
  return FIM_TOKENS.some((pair) => pair.every((token) => tokens.includes(token)));
}

/** What a Jinja template computes, without the text around it. In one pass: anybody may publish a template. */
function expressionsOf(template: string): string {
  const opening = /\{[{%]/g;
  const found: string[] = [];
  for (let match = opening.exec(template); match !== null; match = opening.exec(template)) {
    const closing = template.indexOf(match[0] === "{{" ? "}}" : "%}", opening.lastIndex);
    // What is never closed is no template: no engine renders it.
    if (closing === -1) break;
    found.push(template.slice(opening.lastIndex, closing));
    opening.lastIndex = closing + 2;
  }
  return found.join("\n");
}

async function readProfile(
  store: Store,
  model: StoredModel,
  options: { readonly signal: AbortSignal },
): Promise<ModelProfile> {
  const facts = await readConfigFacts(store, model);
  const { header, parameterCount } = await readWeightHeader(store, facts, options);
  const projectorLayer = facts.layers.find(({ mediaType, path }) => isProjector(mediaType, path));
  const projector =
    projectorLayer === undefined ? undefined : await readLayer(store, projectorLayer, options);
  const template = (await readTemplate(store, facts.layers)) ?? textAt(header, TEMPLATE_KEY);
  const count = parameterCount > 0 ? { "general.parameter_count": parameterCount } : {};
  return {
    capabilities: judge({ header, template, projector: projector?.header }),
    template,
    info: { ...count, ...withoutArrays(header) },
    projectorInfo: projector === undefined ? null : withoutArrays(projector.header),
  };
}

interface LayerHeader {
  readonly header: ReadonlyMap<string, HeaderValue>;
  readonly parameterCount: number;
}

/** The first of several shards has the keys, each its own tensors. */
async function readWeightHeader(
  store: Store,
  facts: ConfigFacts,
  options: { readonly signal: AbortSignal },
): Promise<LayerHeader> {
  const weights = weightLayers(facts);
  const isGguf = (facts.config.format ?? "gguf") === "gguf";
  let header: ReadonlyMap<string, HeaderValue> = new Map();
  let parameterCount = 0;
  if (!isGguf) return { header, parameterCount };
  for (const [index, layer] of weights.entries()) {
    // Packed weights are known when they are unpacked; nothing is unpacked to answer a question.
    if (/\.tar(?:$|\+)/.test(layer.mediaType)) break;
    const part = await readLayer(store, layer, options);
    if (index === 0) header = part.header;
    parameterCount += part.parameterCount;
  }
  return { header, parameterCount };
}

async function readLayer(
  store: Store,
  { digest, path }: ModelLayer,
  options: { readonly signal: AbortSignal },
): Promise<LayerHeader> {
  // Loaded with the parser: most commands never read a header.
  const { readGgufHeader } = await import("../store/gguf-header.ts");
  const file = { location: store.blobPath(digest), name: baseName(path ?? digest) };
  const { values, parameterCount } = await readGgufHeader(file, options);
  return { header: values, parameterCount };
}

async function readTemplate(
  store: Store,
  layers: readonly ModelLayer[],
): Promise<string | undefined> {
  const layer = layers.find(({ mediaType, path }) => isTemplate(mediaType, path));
  if (layer === undefined) return undefined;
  return new TextDecoder().decode(await store.readBlob(layer, { maxBytes: MAX_TEMPLATE_BYTES }));
}

function lengthOf({ template, info, projectorInfo }: ModelProfile): number {
  const texts = [template, ...Object.values(info), ...Object.values(projectorInfo ?? {})];
  return texts.reduce<number>((sum, text) => sum + (typeof text === "string" ? text.length : 0), 0);
}

function textAt(header: ReadonlyMap<string, HeaderValue>, key: string): string | null {
  const value = header.get(key);
  return typeof value === "string" && value !== "" && !isLong(value) ? value : null;
}

function isLong(value: HeaderValue): boolean {
  return typeof value === "object" || String(value).length > MAX_VALUE_LENGTH;
}

function withoutArrays(header: ReadonlyMap<string, HeaderValue>): HeaderInfo {
  return Object.fromEntries([...header].map(([key, value]) => [key, isLong(value) ? null : value]));
}
