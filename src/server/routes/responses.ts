/** OpenAI's Responses, under every prefix that the other routes of OpenAI have. */
import { Hono } from "hono";
import { AppError } from "../../errors.ts";
import type { AppDeps, AppEnv } from "../deps.ts";
import type { ResponsesApi } from "../responses/api.ts";
import { readerOf } from "../responses/reader.ts";
import { requireRuntime } from "../worker-request.ts";
import { bodiesOf, engineOf, V1_PREFIXES } from "./engine-paths.ts";

export const PREFIXES = ["", "/engines", ...V1_PREFIXES].map((prefix) => `${prefix}/responses`);

export function responsesRoutes(deps: AppDeps): Hono<AppEnv> {
  const app = new Hono<AppEnv>();
  const open = opener(deps);
  for (const prefix of PREFIXES) {
    app.post(prefix, async (c) => (await open()).create(c, await engineOf(c)));
    app.post(`${prefix}/input_tokens`, async (c) => (await open()).count(c, await engineOf(c)));
    app.post(`${prefix}/compact`, () => {
      throw new AppError("not_supported", "cannot compact a conversation: no engine here does", {
        hint: "Ask the model for a summary, and go on with that as `input`.",
      });
    });
    app.get(`${prefix}/:id`, async (c) => {
      const api = await open();
      const { id } = c.req.param();
      const { stream, starting_after: after } = c.req.query();
      if (stream === "true") return api.resume(readerOf(c), id, after);
      return c.json(api.retrieve(readerOf(c), id));
    });
    app.delete(`${prefix}/:id`, async (c) =>
      c.json((await open()).remove(readerOf(c), c.req.param("id"))),
    );
    app.post(`${prefix}/:id/cancel`, async (c) =>
      c.json((await open()).cancel(readerOf(c), c.req.param("id"))),
    );
    app.get(`${prefix}/:id/input_items`, async (c) => {
      const { order, limit, after } = c.req.query();
      const query = { order, limit, after };
      return c.json((await open()).inputItems(readerOf(c), c.req.param("id"), query));
    });
  }
  return app;
}

// --- internal ---

/** Loaded when first asked for: most processes with an app never are. */
function opener(deps: AppDeps): () => Promise<ResponsesApi> {
  const bodies = bodiesOf(deps);
  let opened: Promise<ResponsesApi> | undefined;
  const open = async (): Promise<ResponsesApi> => {
    // Only the runner knows which of them are being made.
    requireRuntime(deps);
    if (deps.responses === undefined) {
      throw new AppError("not_supported", "cannot answer: responses are not kept here");
    }
    const [{ ResponsesApi: Api }, store] = await Promise.all([
      import("../responses/api.ts"),
      deps.responses(),
    ]);
    return new Api({ deps, bodies, store });
  };
  return () =>
    (opened ??= open().catch((error: unknown) => {
      opened = undefined;
      throw error;
    }));
}
