/** The HTTP API as a value: `app.fetch(request, bindings)`. Listening is somebody else's. */
import { type Context, Hono, type MiddlewareHandler } from "hono";
import { AppError, toAppError } from "../errors.ts";
import { log } from "../log.ts";
import type { AppDeps, AppEnv } from "./deps.ts";
import { dialectOf } from "./dialect.ts";
import { shownByDockerCli } from "./docker-cli.ts";
import { demandsKey, requireApiKey } from "./auth.ts";
import { toErrorResponse } from "./error-response.ts";
import { guard } from "./guard.ts";
import { showRequestId, toRequestId } from "./request-id.ts";
import { anthropicRoutes } from "./routes/anthropic.ts";
import { engineRoutes } from "./routes/engines.ts";
import { healthRoutes } from "./routes/health.ts";
import { keyRoutes } from "./routes/keys.ts";
import { logRoutes } from "./routes/logs.ts";
import { metricsRoutes } from "./routes/metrics.ts";
import { ollamaRoutes } from "./routes/ollama/index.ts";
import { openaiRoutes } from "./routes/openai.ts";
import { openapiRoutes } from "./routes/openapi.ts";
import { requestRoutes } from "./routes/requests.ts";
import { responsesRoutes } from "./routes/responses.ts";
import { runnerRoutes } from "./routes/runner.ts";

export type App = Hono<AppEnv>;

const METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"];

/** What Docker Desktop puts in front of every path on Docker's own socket. */
const DESKTOP_PREFIX = /^\/exp\/vDD4\.40(?=\/|$)/;

export function createApp(deps: AppDeps): App {
  const app: App = new Hono<AppEnv>({ getPath: routePath });
  app.use(frame(deps));
  // A page that rebinds a name to this machine has no key; with one, the Host header may name any address of it.
  app.use(
    guard(deps.allowedOrigins, {
      anyHost: demandsKey(deps),
      hosts: deps.allowedHosts ?? [],
    }),
  );
  app.use(requireApiKey(deps));
  app.route("/models", deps.models);
  if (deps.registries !== undefined) app.route("/registries", deps.registries);
  app.route("/engines", engineRoutes(deps));
  app.route("/engines", requestRoutes(deps));
  if (deps.settingsRoutes !== undefined) app.route("/engines", deps.settingsRoutes);
  app.route("/", anthropicRoutes(deps));
  app.route("/", openaiRoutes(deps));
  app.route("/", responsesRoutes(deps));
  app.route("/", ollamaRoutes(deps));
  app.route("/", runnerRoutes(deps));
  app.route("/", logRoutes(deps));
  app.route("/", keyRoutes(deps));
  app.route("/", metricsRoutes(deps.metrics));
  app.route("/", healthRoutes(deps));
  app.route("/", openapiRoutes(deps));
  app.onError((thrown, c) => {
    const error = toAppError(thrown);
    if (error.code === "internal") {
      const { stack } = error.cause instanceof Error ? error.cause : error;
      log.error(`server: request failed method=${c.req.method} path=${c.req.path} ${stack}`);
    }
    const response = toErrorResponse(error, dialectOf(c.req.path));
    return shownByDockerCli(response, error, c.req.raw);
  });
  app.notFound((c) => refuseUnrouted(app, c.req.method, c.req.path));
  return app;
}

/** The path with doubled and trailing slashes and Docker Desktop's prefix taken out, still percent-encoded. */
export function routePath(request: Request): string {
  const start = request.url.indexOf("/", request.url.indexOf("://") + 3);
  if (start < 0) return "/";
  const end = request.url.slice(start).search(/[?#]/);
  const path = end < 0 ? request.url.slice(start) : request.url.slice(start, start + end);
  const single = path.replaceAll(/\/{2,}/g, "/").replace(/(?<=.)\/$/, "");
  return single.startsWith("/exp/") ? single.replace(DESKTOP_PREFIX, "") || "/" : single;
}

// --- internal ---

/** A name and a line in the log for each request. One function for all: what waits in it waits a thousand times over. */
function frame({ engineNames }: AppDeps): MiddlewareHandler<AppEnv> {
  return async function frameRequest(c, next) {
    const start = performance.now();
    const id = toRequestId(c.req.raw.headers);
    c.set("requestId", id);
    c.set("engineNames", engineNames);
    await next();
    showRequestId(c, id);
    if (c.req.method === "HEAD") await endBody(c);
    const ms = (performance.now() - start).toFixed(1);
    log.debug(`server: answered ${c.req.method} ${c.req.path} status=${c.res.status} ms=${ms}`);
  };
}

/** Hono answers HEAD as GET, and would drop the body unread: whoever fills it has to hear that nobody reads. */
async function endBody(c: Context<AppEnv>): Promise<void> {
  await c.res.body?.cancel().catch(() => undefined);
  c.res = new Response(null, c.res);
}

/** 405 for a path that other methods have, else 404 (RFC 9110 §15.5.6: Allow lists them). */
function refuseUnrouted(app: App, method: string, path: string): Response {
  const dialect = dialectOf(path);
  const allowed = METHODS.filter((candidate) =>
    app.router.match(candidate, path)[0].some(([[, route]]) => route.method === candidate),
  );
  if (allowed.length === 0) {
    return toErrorResponse(
      new AppError(
        "not_found",
        `cannot ${method} \`${path.slice(0, 200)}\`: there is no such route`,
        {
          hint: "Check the path; the OpenAI routes are under /v1 and /engines/v1.",
        },
      ),
      dialect,
    );
  }
  const response = toErrorResponse(
    new AppError("method_not_allowed", `cannot ${method} \`${path.slice(0, 200)}\``, {
      hint: `Use ${allowed.join(" or ")}.`,
    }),
    dialect,
  );
  if (allowed.includes("GET")) allowed.push("HEAD");
  response.headers.set("allow", [...allowed, "OPTIONS"].join(", "));
  return response;
}
