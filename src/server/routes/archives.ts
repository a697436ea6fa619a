/** The routes under `/models` for archives: models out of the store and into it as tar files. */
import type { Context, Hono } from "hono";
import * as v from "valibot";
import { ARCHIVE_SIZE, PROGRESS_TYPE } from "../../api/headers.ts";
import type { Model } from "../../api/models.ts";
import { AppError } from "../../errors.ts";
import type { ModelArchive } from "../../models/export.ts";
import { describeModel } from "../../models/inspect.ts";
import type { Store } from "../../store/store.ts";
import type { AppEnv, WorkOptions } from "../deps.ts";
import { DockerWords, readsProgress } from "../docker-progress.ts";
import { progressResponse } from "../progress-response.ts";
import { parseBody } from "../request-body.ts";

export const ExportBody = v.strictObject({
  models: v.pipe(v.array(v.string()), v.minLength(1)),
  have: v.exactOptional(v.array(v.string())),
  missing_from: v.exactOptional(v.string()),
});

/** Before the routes that take any name. */
export function addArchiveRoutes(routes: Hono<AppEnv>, store: Store): void {
  routes.post("/load", (c) => load(c, store));
  routes.post("/export", (c) => exportSeveral(c, store));
  routes.get("/:name{.+}/export", async (c) => {
    const name = c.req.param("name") ?? "";
    const { exportModels } = await import("../../models/export.ts");
    const archive = await exportModels(store, { models: [name] }, { signal: c.req.raw.signal });
    return toResponse(archive, `${name.replaceAll(/[/:@]/g, "-")}.tar`);
  });
}

// --- internal ---

/** Docker's CLI reads the status alone: it gets one when all is done, and one line. */
async function load(c: Context<AppEnv>, store: Store): Promise<Response> {
  const { body, signal } = c.req.raw;
  if (body === null) {
    throw new AppError("invalid_request", "cannot load a model: the body is empty", {
      hint: "Send the tar archive of a model.",
    });
  }
  const work = async (options: WorkOptions): Promise<Model[]> => {
    const { importModels } = await import("../../models/import.ts");
    const models = await importModels(store, body, options);
    return Promise.all(models.map((model) => describeModel(store, model)));
  };
  if (readsProgress(c.req.raw)) return progressResponse(signal, work);
  const result = await work({ signal, onProgress: () => undefined });
  const words = new DockerWords<Model[]>("pull", () => "Model loaded successfully");
  const line = words.line({ type: "success", result });
  return c.body(line, 200, { "content-type": PROGRESS_TYPE });
}

async function exportSeveral(c: Context<AppEnv>, store: Store): Promise<Response> {
  const { value } = await parseBody(c.req.raw, ExportBody);
  const { models, have = [], missing_from: path } = value;
  const { signal } = c.req.raw;
  if (path !== undefined && c.env?.trusted !== true) {
    throw new AppError("forbidden", "cannot export: this client may not name files", {
      hint: "Leave out `--missing-from`, or export on the machine itself; API clients send digests as `have`.",
    });
  }
  const named = path === undefined ? [] : await readNamed(path, signal);
  const { exportModels } = await import("../../models/export.ts");
  const archive = await exportModels(store, { models, have: [...have, ...named] }, { signal });
  return toResponse(archive, "models.tar");
}

async function readNamed(path: string, signal: AbortSignal): Promise<ReadonlySet<string>> {
  const { readDigests } = await import("../../models/archive-digests.ts");
  return readDigests(path, { signal });
}

function toResponse({ sizeBytes, chunks }: ModelArchive, fileName: string): Response {
  return new Response(toStream(chunks), {
    headers: {
      "content-type": "application/x-tar",
      [ARCHIVE_SIZE]: String(sizeBytes),
      "content-disposition": `attachment; filename*=UTF-8''${encodeURIComponent(fileName)}`,
    },
  });
}

/** Reads on as the client does. */
function toStream(chunks: AsyncIterable<Uint8Array>): ReadableStream<Uint8Array> {
  const iterator = chunks[Symbol.asyncIterator]();
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      const { done, value } = await iterator.next();
      if (done === true) controller.close();
      else controller.enqueue(value);
    },
    cancel: async () => void (await iterator.return?.()),
  });
}
