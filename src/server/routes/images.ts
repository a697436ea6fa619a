/**
 * Pictures in OpenAI's words. The engine draws them and answers with base64; URLs are made of that here, for the host by
 * which the client reached the runner.
 *
 * @see https://platform.openai.com/docs/api-reference/images
 */
import type { Context, Hono } from "hono";
import { AppError } from "../../errors.ts";
import { isRecord } from "../../oci/descriptor.ts";
import type { AppDeps, AppEnv } from "../deps.ts";
import { OPENAI } from "../dialect.ts";
import {
  ImageGenerationRequest,
  type ImageRequest,
  readEdit,
  requireSize,
} from "../image-request.ts";
import { answerInference, type HeldBody, readInferenceBody } from "../inference.ts";
import { readWhole } from "../whole-answer.ts";
import { toRequestSettings } from "../worker-request.ts";
import { bodiesOf, engineOf, V1_PREFIXES } from "./engine-paths.ts";

export const IMAGE_FILES = "/v1/images/files";

export function addImageRoutes(app: Hono<AppEnv>, deps: AppDeps): void {
  const bodies = bodiesOf(deps);
  const generate = async (c: Context<AppEnv>): Promise<Response> => {
    using held = await readInferenceBody(c.req.raw, { schema: ImageGenerationRequest, bodies });
    return await draw({ c, deps, enginePath: "/v1/images/generations" }, held);
  };
  const edit = async (c: Context<AppEnv>): Promise<Response> => {
    using held = await readEdit(c.req.raw, bodies);
    return await draw({ c, deps, enginePath: "/v1/images/edits" }, held);
  };
  for (const prefix of V1_PREFIXES) {
    app.post(`${prefix}/images/generations`, generate);
    app.post(`${prefix}/images/edits`, edit);
  }
  app.get(`${IMAGE_FILES}/:name`, (c) => sendFile(deps, c.req.param("name")));
}

// --- internal ---

type Files = NonNullable<AppDeps["imageFiles"]>;

interface Asked {
  readonly c: Context<AppEnv>;
  readonly deps: AppDeps;
  readonly enginePath: string;
}

async function draw(
  { c, deps, enginePath }: Asked,
  held: HeldBody<ImageRequest>,
): Promise<Response> {
  const backend = await engineOf(c);
  requireSize(held.value);
  const { response_format: form, ...value } = held.value;
  const isStream = value.stream === true;
  const body = { ...value, response_format: "b64_json" };
  const response = await answerInference(
    { c, deps, route: { enginePath, mode: "image-generation", dialect: OPENAI, backend } },
    {
      modelName: value.model,
      settings: toRequestSettings(value, c.req.raw.headers),
      body,
      bytes: new TextEncoder().encode(JSON.stringify(body)),
      isStream,
      held: held.keep(),
    },
  );
  if (form !== "url" || isStream || !isAnswer(response)) return response;
  return toUrls(response, filesOf(deps), await baseOf(c, deps));
}

/** A model that was only to be loaded has no answer. */
function isAnswer(response: Response): boolean {
  return (
    response.ok && response.headers.get("content-type")?.startsWith("application/json") === true
  );
}

async function toUrls(response: Response, files: Files, base: string): Promise<Response> {
  const answer = await readWhole(response, () => undefined);
  const pictures: unknown = isRecord(answer) ? answer["data"] : undefined;
  const data: unknown[] = [];
  for (const one of Array.isArray(pictures) ? pictures : []) {
    const text: unknown = isRecord(one) ? one["b64_json"] : undefined;
    if (!isRecord(one) || typeof text !== "string") {
      data.push(one);
      continue;
    }
    const { b64_json: _, ...rest } = one;
    const name = await files.keep(Buffer.from(text, "base64"));
    data.push({ ...rest, url: `${base}${IMAGE_FILES}/${name}` });
  }
  const headers = new Headers(response.headers);
  headers.delete("content-length");
  return Response.json({ ...answer, data }, { headers });
}

/** By the socket the host is no address. */
async function baseOf(c: Context<AppEnv>, { runner }: AppDeps): Promise<string> {
  const endpoint = c.env?.trusted === true ? (await runner?.info())?.endpoint : undefined;
  return new URL(endpoint ?? c.req.url).origin;
}

function filesOf({ imageFiles }: AppDeps): Files {
  if (imageFiles !== undefined) return imageFiles;
  throw new AppError("not_supported", "cannot answer with a URL: this process keeps no files", {
    hint: "Ask with `response_format` `b64_json`.",
  });
}

async function sendFile({ imageFiles }: AppDeps, name: string): Promise<Response> {
  const found = imageFiles?.find(name);
  const file = found === undefined ? undefined : Bun.file(found.path);
  if (found === undefined || file === undefined || !(await file.exists())) {
    throw new AppError("not_found", "cannot find the picture: its URL is good for an hour", {
      hint: "Ask for it again, with `response_format` `b64_json` to have it at once.",
    });
  }
  return new Response(file, {
    headers: {
      "content-type": found.type,
      "cache-control": "private, max-age=3600, immutable",
      "x-content-type-options": "nosniff",
    },
  });
}
