/** `/engines/requests`: what was asked and answered. Prompts are private: only the runner's own user sees them, and who has its API key. */
import { type Context, Hono } from "hono";
import type {
  ClearedRequests,
  RequestEventName,
  RequestRecord,
  RequestsOfModel,
} from "../../api/requests.ts";
import { AppError } from "../../errors.ts";
import { maySeePrompts } from "../auth.ts";
import type { AppDeps, AppEnv } from "../deps.ts";
import { isDockerCli } from "../docker-cli.ts";
import { readFlag } from "../query-flag.ts";

/** What was recorded, and what is being recorded. */
export interface RequestLog {
  /** Whether there will be more. */
  readonly isRecording: boolean;
  /** The newest, oldest of them first. */
  list(query: {
    readonly limit: number;
    readonly keep?: (record: RequestRecord) => boolean;
  }): RequestRecord[];
  find(id: string): RequestRecord | undefined;
  /** @returns how many there were */
  clear(): number;
  /** @returns the way to stop; undefined if nothing is recorded here, or too many follow already */
  follow(listener: (record: RequestRecord) => void): (() => void) | undefined;
}

export type RequestRoutesDeps = Pick<AppDeps, "requestLog" | "resolve" | "runner">;

/** All that is kept, as far as the ring goes. */
const MAX_LIMIT = 1000;
/** Docker Model Runner keeps 10 a model; a person reads a page. */
const DEFAULT_LIMIT = 100;
/** What waits for a slow reader; beyond, the oldest events are left out. Bytes. */
const MAX_BACKLOG = 16 * 1024 * 1024;

export function requestRoutes(deps: RequestRoutesDeps): Hono<AppEnv> {
  const app = new Hono<AppEnv>();
  app.get("/requests", async (c) => {
    const log = await open(c, deps);
    const keep = await modelFilter(c.req.query("model"), deps);
    if (c.req.header("accept")?.includes("text/event-stream") === true) {
      return follow(c, { log, keep, leaving: deps.runner?.watching });
    }
    const limit = parseLimit(c.req.query("limit"));
    return c.json(byModel(log.list({ limit, keep })));
  });
  app.get("/requests/:id", async (c) => {
    const id = c.req.param("id");
    const record = (await open(c, deps)).find(id);
    if (record !== undefined) return c.json(record);
    throw new AppError("not_found", `cannot find the request \`${id.slice(0, 100)}\``, {
      hint: "See `tug requests` for those that are kept.",
    });
  });
  app.delete("/requests", async (c) => {
    const removed = (await open(c, deps)).clear();
    return c.json<ClearedRequests>({ removed });
  });
  return app;
}

// --- internal ---

type Keep = (record: RequestRecord) => boolean;

/** @throws forbidden, runner_unreachable */
async function open(c: Context<AppEnv>, deps: RequestRoutesDeps): Promise<RequestLog> {
  if (!maySeePrompts(c)) {
    // Docker's CLI shows what was answered with a 404 alone, which may stand for a 403 (RFC 9110 §15.5.4).
    const isDockers = isDockerCli(c.req.raw);
    throw new AppError(
      isDockers ? "not_found" : "forbidden",
      "cannot show requests: prompts are private",
      {
        hint: "Run `tug requests` on the machine itself, or send a key with the scope `admin` (`tug key create NAME --scope admin`).",
      },
    );
  }
  const log = await deps.requestLog?.();
  if (log !== undefined) return log;
  throw new AppError("runner_unreachable", "cannot show requests: no runner is running", {
    hint: "`tug start-runner` starts it.",
  });
}

/** By the model, whatever it was called; by the name for a model that is not there any more. */
async function modelFilter(name: string | undefined, deps: RequestRoutesDeps): Promise<Keep> {
  if (name === undefined || name === "") return () => true;
  const id = await idOf(name, deps);
  return (record) => record.model_id === id || record.model === name || record.model_id === name;
}

async function idOf(name: string, { resolve }: RequestRoutesDeps): Promise<string | undefined> {
  try {
    return (await resolve(name, { trusted: false })).id;
  } catch (thrown) {
    if (thrown instanceof AppError && thrown.status < 500) return undefined;
    throw thrown;
  }
}

function parseLimit(text: string | undefined): number {
  if (text === undefined) return DEFAULT_LIMIT;
  const limit = /^\d{1,4}$/.test(text) ? Number(text) : 0;
  if (limit >= 1 && limit <= MAX_LIMIT) return limit;
  throw new AppError(
    "invalid_request",
    `cannot show requests: \`${text.slice(0, 80)}\` is no limit`,
    {
      hint: `Give a whole number from 1 to ${MAX_LIMIT} as \`limit\`.`,
    },
  );
}

function byModel(records: readonly RequestRecord[]): RequestsOfModel[] {
  const groups = Map.groupBy(records, ({ model_id }) => model_id);
  return Array.from(groups.values(), (group) => ({
    count: group.length,
    model: group.at(-1)?.model ?? "",
    config: {},
    records: group,
  }));
}

interface FollowOptions {
  readonly log: RequestLog;
  readonly keep: Keep;
  readonly leaving: AbortSignal | undefined;
}

function follow(c: Context<AppEnv>, { log, keep, leaving }: FollowOptions): Response {
  const existing = readFlag(c, "include_existing")
    ? log.list({ limit: parseLimit(c.req.query("limit")), keep })
    : [];
  const backlog: Uint8Array[] = [toEvent("connected", {})];
  backlog.push(...existing.map((record) => toEvent("existing_request", record)));
  const signals = [c.req.raw.signal, leaving].filter((signal) => signal !== undefined);
  const stream = new FollowStream({ backlog, signal: AbortSignal.any(signals) });
  const stop = log.follow((record) => {
    if (keep(record)) stream.push(toEvent("new_request", record));
  });
  if (stop === undefined) throw refusal(log);
  return new Response(stream.open(stop), {
    headers: { "content-type": "text/event-stream", "cache-control": "no-cache" },
  });
}

function refusal({ isRecording }: RequestLog): AppError {
  if (isRecording) {
    return new AppError("too_many_requests", "cannot follow requests: too many do already", {
      hint: "End one of the others.",
    });
  }
  return new AppError("not_supported", "cannot follow requests: none are recorded", {
    hint: "Set `record_requests = true` in config.toml and restart the runner.",
  });
}

/** Events for one reader: a slow one misses the oldest, and holds up nobody. */
class FollowStream {
  readonly #backlog: Uint8Array[];
  readonly #signal: AbortSignal;
  #controller: ReadableStreamDefaultController<Uint8Array> | undefined;

  constructor(options: { backlog: Uint8Array[]; signal: AbortSignal }) {
    this.#backlog = options.backlog;
    this.#signal = options.signal;
  }

  open(stop: () => void): ReadableStream<Uint8Array> {
    const end = (): void => {
      stop();
      this.#signal.removeEventListener("abort", end);
      this.#controller?.close();
      this.#controller = undefined;
    };
    return new ReadableStream<Uint8Array>({
      start: (controller) => {
        this.#controller = controller;
        this.#signal.addEventListener("abort", end, { once: true });
        if (this.#signal.aborted) end();
      },
      pull: () => this.#flush(),
      cancel: () => {
        this.#controller = undefined;
        end();
      },
    });
  }

  push(event: Uint8Array): void {
    this.#backlog.push(event);
    let bytes = this.#backlog.reduce((sum, { byteLength }) => sum + byteLength, 0);
    while (bytes > MAX_BACKLOG && this.#backlog.length > 1) {
      bytes -= this.#backlog.shift()?.byteLength ?? 0;
    }
    this.#flush();
  }

  #flush(): void {
    while ((this.#controller?.desiredSize ?? 0) > 0) {
      const event = this.#backlog.shift();
      if (event === undefined) return;
      this.#controller?.enqueue(event);
    }
  }
}

function toEvent(name: RequestEventName, data: unknown): Uint8Array {
  return new TextEncoder().encode(`event: ${name}\ndata: ${JSON.stringify(data)}\n\n`);
}
