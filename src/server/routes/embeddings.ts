/**
 * Embeddings in OpenAI's words. Untouched, unless `dimensions` asks for shorter ones: engines ignore it, so they are
 * cut here and brought back to length 1, as for models that were trained to be cut (Matryoshka).
 *
 * @see https://platform.openai.com/docs/api-reference/embeddings/create
 */
import type { Context, Hono } from "hono";
import * as v from "valibot";
import { AppError } from "../../errors.ts";
import { isRecord } from "../../oci/descriptor.ts";
import type { AppDeps, AppEnv } from "../deps.ts";
import { OPENAI } from "../dialect.ts";
import { answerInference, InferenceBody, readInferenceBody } from "../inference.ts";
import { toRequestSettings } from "../worker-request.ts";
import { bodiesOf, engineOf, V1_PREFIXES } from "./engine-paths.ts";

const TOKEN = v.pipe(v.number(), v.integer(), v.minValue(0));

/** The widest vectors of models have some ten thousand. */
const MAX_DIMENSIONS = 1_000_000;

/** `POST /v1/embeddings`. */
export const EmbeddingsRequest = v.looseObject({
  ...InferenceBody.entries,
  input: v.pipe(
    v.union([v.string(), v.array(v.string()), v.array(TOKEN), v.array(v.array(TOKEN))]),
    v.nonEmpty("must not be empty"),
    v.description("A text, its tokens, or a list of either."),
  ),
  encoding_format: v.nullish(v.picklist(["float", "base64"])),
  dimensions: v.nullish(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(MAX_DIMENSIONS))),
});

export function addEmbeddingRoutes(app: Hono<AppEnv>, deps: AppDeps): void {
  const bodies = bodiesOf(deps);
  const serve = async (c: Context<AppEnv>): Promise<Response> => {
    const backend = await engineOf(c);
    using held = await readInferenceBody(c.req.raw, { schema: EmbeddingsRequest, bodies });
    const { value, bytes } = held;
    return await answerInference(
      {
        c,
        deps,
        route: { enginePath: "/v1/embeddings", mode: "embedding", dialect: OPENAI, backend },
      },
      {
        modelName: value.model,
        settings: toRequestSettings(value, c.req.raw.headers),
        ...cutFor(value),
        bytes,
        isStream: false,
        held: held.keep(),
      },
    );
  };
  for (const prefix of V1_PREFIXES) app.post(`${prefix}/embeddings`, serve);
  app.post("/embeddings", serve);
}

/**
 * @param answer an engine's, with vectors as numbers
 * @throws invalid_request (the vectors are shorter than that)
 */
export function cutEmbeddings(
  answer: object,
  { dimensions, format }: { readonly dimensions: number; readonly format: "float" | "base64" },
): object {
  const data = (answer as { data?: unknown }).data;
  if (!Array.isArray(data)) return answer;
  return {
    ...answer,
    data: data.map((entry: unknown) => {
      const vector: unknown = isRecord(entry) ? entry["embedding"] : undefined;
      if (!isRecord(entry) || !Array.isArray(vector)) return entry;
      const cut = shorten(vector.map(Number), dimensions);
      return { ...entry, embedding: format === "float" ? cut : toBase64(cut) };
    }),
  };
}

// --- internal ---

type Embeddings = v.InferOutput<typeof EmbeddingsRequest>;

function cutFor(value: Embeddings) {
  const { dimensions, encoding_format: format, ...rest } = value;
  if (dimensions === undefined || dimensions === null) return { body: value };
  const options = { dimensions, format: format ?? "float" } as const;
  return {
    body: { ...rest, encoding_format: "float" },
    translation: { whole: (answer: object) => cutEmbeddings(answer, options) },
  };
}

function shorten(vector: readonly number[], dimensions: number): number[] {
  if (dimensions > vector.length) {
    const has = `its embeddings have ${vector.length} dimensions`;
    throw new AppError("invalid_request", `cannot give ${dimensions} dimensions: ${has}`, {
      hint: `Ask for ${vector.length} or fewer, or leave \`dimensions\` out.`,
      details: { param: "dimensions" },
    });
  }
  const cut = vector.slice(0, dimensions);
  const length = Math.hypot(...cut);
  return length === 0 ? cut : cut.map((value) => value / length);
}

/** As OpenAI does: little-endian floats of 32 bits. */
function toBase64(vector: readonly number[]): string {
  const bytes = Buffer.alloc(vector.length * 4);
  vector.forEach((value, index) => bytes.writeFloatLE(value, index * 4));
  return bytes.toString("base64");
}
