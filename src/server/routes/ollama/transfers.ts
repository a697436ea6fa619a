/** Of Ollama's API: pulling and pushing. */
import type { Context, Hono } from "hono";
import type { AppDeps, AppEnv } from "../../deps.ts";
import { parseBody } from "../../request-body.ts";
import { pullThrough } from "../transfers.ts";
import { exactName, findModel, pullSource } from "./names.ts";
import { answerWithStatuses, sayStatus, type StatusOptions } from "./progress.ts";
import { OllamaPullRequest, OllamaPushRequest, requireModels, requireName } from "./requests.ts";

const PULL_STATUSES: Omit<StatusOptions, "stream"> = {
  verb: "pulling",
  ending: ["verifying sha256 digest", "writing manifest"],
};

const PUSH_STATUSES: Omit<StatusOptions, "stream"> = {
  verb: "pushing",
  ending: ["pushing manifest"],
};

export function addOllamaTransferRoutes(app: Hono<AppEnv>, deps: AppDeps): void {
  app.post("/api/pull", (c) => pull(c, deps));
  app.post("/api/push", (c) => push(c, deps));
}

// --- internal ---

type RouteContext = Context<AppEnv>;

async function pull(c: RouteContext, deps: AppDeps): Promise<Response> {
  const { value: body } = await parseBody(c.req.raw, OllamaPullRequest);
  const models = requireModels(deps);
  const from = await pullSource(models.store, requireName(body));
  const request = { from, ...(body.insecure === true ? { insecure: true } : {}) };
  const options = { ...PULL_STATUSES, stream: body.stream ?? true };
  return answerWithStatuses(c, options, (work) => {
    sayStatus(work, "pulling manifest");
    return pullThrough(models, request, work);
  });
}

/** To the registry that the name says: Ollama's own takes no pushes from others. */
async function push(c: RouteContext, deps: AppDeps): Promise<Response> {
  const { value: body } = await parseBody(c.req.raw, OllamaPushRequest);
  const { store, distribution } = requireModels(deps);
  const asked = requireName(body);
  // Before a stream begins: what is not here has a status of its own.
  await findModel(store, asked, { signal: c.req.raw.signal });
  const name = await exactName(store, asked);
  const request = { name, ...(body.insecure === true ? { insecure: true } : {}) };
  const options = { ...PUSH_STATUSES, stream: body.stream ?? true };
  return answerWithStatuses(c, options, (work) => {
    sayStatus(work, "retrieving manifest");
    return distribution.push(request, work);
  });
}
