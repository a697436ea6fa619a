/** The routes under `/models` that reach beyond the store: pull, push, copy, search, adopt. */
import type { Context, Hono } from "hono";
import * as v from "valibot";
import { WARNINGS } from "../../api/headers.ts";
import type { PullJob, PullRequest, PullResult } from "../../api/models.ts";
import { AppError } from "../../errors.ts";
import { isBuiltin } from "../../models/builtin.ts";
import { parseReference } from "../../oci/reference.ts";
import type { AppEnv, Distribution, WorkOptions } from "../deps.ts";
import { dockerProgress } from "../docker-progress.ts";
import { progressResponse } from "../progress-response.ts";
import type { PullJobs } from "../pull-jobs.ts";
import { parseBody, parseOptionalBody } from "../request-body.ts";

/** Addresses with signed queries have some thousand characters, tokens too; both fit into one line of a request. */
const MAX_NAME = 8192;
const MAX_TOKEN = 16_384;

/** What Go's clients leave out others send as null or "". */
const BearerToken = v.nullish(v.pipe(v.string(), v.maxLength(MAX_TOKEN)));

/** Members that we do not know are ignored, as Docker Model Runner does: its clients send some. */
export const PullBody = v.object({
  from: v.pipe(v.string(), v.maxLength(MAX_NAME)),
  "bearer-token": BearerToken,
  platform: v.exactOptional(v.string()),
  insecure: v.exactOptional(v.boolean()),
  connections: v.exactOptional(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(64))),
  limit_rate: v.exactOptional(v.pipe(v.number(), v.integer(), v.minValue(0))),
  detach: v.exactOptional(v.boolean()),
});

export const PushBody = v.object({
  to: v.exactOptional(v.string()),
  "bearer-token": BearerToken,
  insecure: v.exactOptional(v.boolean()),
});

export const CopyBody = v.strictObject({
  source: v.string(),
  target: v.string(),
  platform: v.exactOptional(v.string()),
  insecure: v.exactOptional(v.boolean()),
});

export const AdoptBody = v.strictObject({ dry_run: v.exactOptional(v.boolean()) });

export interface TransferRoutesDeps {
  readonly distribution: Distribution;
  /** The runner's; absent in a process that pulls by itself. */
  readonly pulls?: PullJobs;
}

/** Before the routes that take any name. */
export function addTransferRoutes(routes: Hono<AppEnv>, deps: TransferRoutesDeps): void {
  const { distribution } = deps;
  routes.post("/create", (c) => create(c, deps));
  routes.get("/pulls", (c) => c.json(deps.pulls?.list() ?? []));
  routes.delete("/pulls/:id{[^:/]+}", (c) => cancelPull(c, deps));
  routes.get("/search", (c) => search(c, distribution));
  routes.post("/copy", (c) => copy(c, distribution));
  routes.post("/adopt", (c) => adopt(c, distribution));
  routes.post("/:name{.+}/push", (c) => push(c, distribution));
}

/** In the runner pulls have processes of their own; what is in the executable needs none to fetch it. */
export function pullThrough(
  { distribution, pulls }: TransferRoutesDeps,
  request: PullRequest,
  options: WorkOptions,
): Promise<PullResult> {
  const inProcess = pulls === undefined || isBuiltin(request.from);
  return inProcess ? distribution.pull(request, options) : pulls.pull(request, options);
}

// --- internal ---

type RouteContext = Context<AppEnv>;

/** More than a page of results is for a page of the web. */
const MAX_RESULTS = 1000;
const DEFAULT_RESULTS = 25;
const SOURCES = ["docker", "huggingface", "all"] as const;

async function create(c: RouteContext, deps: TransferRoutesDeps): Promise<Response> {
  const { value } = await parseBody(c.req.raw, PullBody);
  refuseNonName(value.from);
  const { detach = false, "bearer-token": token, ...rest } = value;
  const request = { ...rest, ...withToken(token) };
  if (detach) return c.json(detachPull(deps.pulls, request), 202);
  return dockerProgress(c.req.raw, { mode: "pull", done: describePull }, (options) =>
    pullThrough(deps, request, options),
  );
}

/** Docker Model Runner's own sentences. */
function describePull({ up_to_date, size_bytes }: PullResult): string {
  if (!up_to_date) return "Model pulled successfully";
  return `Using cached model: ${(size_bytes / 1e6).toFixed(2)} MB`;
}

function describePush(): string {
  return "Model pushed successfully";
}

function withToken(token: string | null | undefined): { readonly "bearer-token"?: string } {
  return token ? { "bearer-token": token } : {};
}

/** A mistake in a plain name is the status; addresses and revisions only the pull itself understands. */
function refuseNonName(name: string): void {
  if (!/@|:\/\//.test(name)) parseReference(name);
}

function detachPull(pulls: PullJobs | undefined, request: PullRequest): PullJob {
  if (pulls !== undefined) return pulls.detach(request);
  throw new AppError("not_supported", "cannot pull in the background: this is not the runner", {
    hint: "Start it with `tug start-runner`.",
  });
}

async function cancelPull(c: RouteContext, { pulls }: TransferRoutesDeps): Promise<Response> {
  const id = c.req.param("id") ?? "";
  if (pulls !== undefined) return c.json(await pulls.cancel(id));
  throw new AppError("not_found", `cannot cancel \`${id.slice(0, 40)}\`: no runner runs here`, {
    hint: "A pull of another `tug pull` ends with Ctrl-C where it runs.",
  });
}

async function push(c: RouteContext, distribution: Distribution): Promise<Response> {
  const name = c.req.param("name") ?? "";
  const { "bearer-token": token, ...rest } = await parseOptionalBody(c.req.raw, PushBody);
  const request = { name, ...rest, ...withToken(token) };
  return dockerProgress(c.req.raw, { mode: "push", done: describePush }, (options) =>
    distribution.push(request, options),
  );
}

async function copy(c: RouteContext, distribution: Distribution): Promise<Response> {
  const { value } = await parseBody(c.req.raw, CopyBody);
  return progressResponse(c.req.raw.signal, (options) => distribution.copy(value, options));
}

async function search(c: RouteContext, distribution: Distribution): Promise<Response> {
  const { q = "", source = "all", limit = String(DEFAULT_RESULTS) } = c.req.query();
  const known = SOURCES.find((candidate) => candidate === source);
  if (known === undefined) {
    throw new AppError("invalid_request", `cannot search \`${source.slice(0, 80)}\``, {
      hint: `Give one of ${SOURCES.join(", ")} as \`source\`.`,
    });
  }
  const count = /^\d{1,4}$/.test(limit) ? Number(limit) : 0;
  if (count < 1 || count > MAX_RESULTS) {
    throw new AppError("invalid_request", `cannot search: \`${limit.slice(0, 80)}\` is no limit`, {
      hint: `Give a whole number from 1 to ${MAX_RESULTS} as \`limit\`.`,
    });
  }
  const query = { text: q, source: known, limit: count };
  const warnings: string[] = [];
  const results = await distribution.search(query, {
    signal: c.req.raw.signal,
    onProgress: (event) => void (event.type === "warning" && warnings.push(event.message)),
  });
  const said = encodeURIComponent(JSON.stringify(warnings));
  return c.json(results, 200, warnings.length === 0 ? {} : { [WARNINGS]: said });
}

/** It looks through the user's files, so only that user may ask. */
async function adopt(c: RouteContext, distribution: Distribution): Promise<Response> {
  if (c.env?.trusted !== true) {
    throw new AppError("forbidden", "cannot adopt files: this client may not look at files", {
      hint: "Run `tug adopt` on the machine itself.",
    });
  }
  const request = await parseOptionalBody(c.req.raw, AdoptBody);
  return progressResponse(c.req.raw.signal, (options) => distribution.adopt(request, options));
}
