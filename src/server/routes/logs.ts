/**
 * `GET /logs`: the logs of the runner and of its engines, merged by time. Engines quote requests where something is wrong
 * with them, and whole prompts if they are told to be verbose: their lines are as private as `/engines/requests`.
 */
import { Hono } from "hono";
import { WARNINGS } from "../../api/headers.ts";
import { parseDuration } from "../../config.ts";
import { AppError } from "../../errors.ts";
import { maySeePrompts } from "../auth.ts";
import type { AppDeps, AppEnv } from "../deps.ts";
import type { LogSource } from "../log-reader.ts";
import { readFlag } from "../query-flag.ts";

export type LogRoutesDeps = Pick<AppDeps, "logs" | "resolve" | "runner" | "apiKey">;

/** Of the last lines; who wants more wants all. */
const MAX_TAIL = 100_000;
const MAX_SHOWN = 80;
const NOT_HERE =
  "The runner writes its own lines to the terminal of `tug serve`; these are those of its engines.";

export function logRoutes(deps: LogRoutesDeps): Hono<AppEnv> {
  const app = new Hono<AppEnv>();
  app.get("/logs", async (c) => {
    const logs = present(deps.logs);
    const follow = readFlag(c, "follow");
    const engines = !readFlag(c, "no-engines");
    if (engines && !maySeePrompts(c)) throw notForAll();
    if (!engines && !logs.hasRunnerLog) throw notHere();
    if (follow) refuseWithoutRunner(deps);
    const sinceMs = parseSince(c.req.query("since"));
    const tail = parseTail(c.req.query("tail"));
    const trusted = c.env?.trusted === true;
    const models = await modelNames(c.req.query("model"), { trusted, resolve: deps.resolve });
    const filter = { ...(sinceMs !== undefined && { sinceMs }), ...(models && { models }) };
    const signals = [c.req.raw.signal, deps.runner?.watching].filter((one) => one !== undefined);
    const lines = await logs.read({ follow, engines, tail, ...filter }, AbortSignal.any(signals));
    const headers = new Headers({ "content-type": "text/plain; charset=utf-8" });
    if (!logs.hasRunnerLog) headers.set(WARNINGS, encodeURIComponent(JSON.stringify([NOT_HERE])));
    return new Response(lines, { headers });
  });
  return app;
}

/** `10m` ago, or a time as RFC 3339 writes it. Milliseconds since 1970. @throws usage */
export function parseSince(text: string | undefined, nowMs = Date.now()): number | undefined {
  if (text === undefined || text === "") return undefined;
  const dateTime =
    /^\d{4}-\d\d-\d\d(?:[Tt ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:[Zz]|[+-]\d\d:\d\d)?)?$/;
  const atMs = dateTime.test(text) ? Date.parse(text.replace(" ", "T").toUpperCase()) : Number.NaN;
  if (Number.isFinite(atMs)) return atMs;
  if (/^[\d.]+(?:ms|s|m|h|d)/.test(text)) return nowMs - parseDuration(text);
  throw new AppError("usage", `cannot show logs since \`${shown(text)}\`: it is no time`, {
    hint: "Give a duration such as `10m`, or a time such as `2026-01-31T12:00:00Z`.",
  });
}

// --- internal ---

function present(logs: LogSource | undefined): LogSource {
  if (logs !== undefined) return logs;
  throw new AppError("not_supported", "cannot show logs: this runner keeps none", {
    hint: "Look where its stderr goes.",
  });
}

function notForAll(): AppError {
  return new AppError(
    "forbidden",
    "cannot show the engines' logs: requests may be quoted in them",
    {
      hint: "Run `tug logs` on the machine itself, send a key with the scope `admin` (`tug key create NAME --scope admin`), or ask for `/logs?no-engines=true`.",
    },
  );
}

function notHere(): AppError {
  return new AppError(
    "not_supported",
    "cannot show the log: the runner writes it to its terminal",
    {
      hint: "Look where `tug serve` was started; without `--no-engines` its engines' logs are shown.",
    },
  );
}

/** Nothing would ever be added. */
function refuseWithoutRunner({ runner }: LogRoutesDeps): void {
  if (runner !== undefined) return;
  throw new AppError("runner_unreachable", "the runner is not running", {
    hint: "Leave out `--follow` for what was logged; `tug start-runner` starts it.",
  });
}

/** @returns undefined for all of them @throws usage */
function parseTail(text: string | undefined): number | undefined {
  if (text === undefined || text === "" || text === "all") return undefined;
  const tail = /^\d{1,6}$/.test(text) ? Number(text) : Infinity;
  if (tail <= MAX_TAIL) return tail;
  throw new AppError("usage", `cannot show the last \`${shown(text)}\` lines`, {
    hint: `Give a whole number up to ${MAX_TAIL}, or \`all\`.`,
  });
}

/** A model may have gone whose lines are still there: then its name has to do. */
async function modelNames(
  name: string | undefined,
  { trusted, resolve }: { trusted: boolean; resolve: AppDeps["resolve"] },
): Promise<readonly string[] | undefined> {
  if (name === undefined || name === "") return undefined;
  try {
    const model = await resolve(name, { trusted });
    return [name, model.name, model.id];
  } catch (thrown) {
    if (thrown instanceof AppError && thrown.status < 500) return [name];
    throw thrown;
  }
}

function shown(text: string): string {
  return text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN)}…` : text;
}
