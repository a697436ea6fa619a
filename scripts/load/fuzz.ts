/**
 * Every route, asked in every wrong way: `bun scripts/load/fuzz.ts [REQUESTS] [SEED]`.
 *
 * Requests are generated from `GET /openapi.json` and spoilt, and sent to the compiled executable with the real
 * llama-server and a model that always says the same. Exit 1 on a status of 500 or more that is not documented, an error
 * that is not in the shape of its dialect, an answer that takes more than ten seconds, and memory, descriptors or leases
 * that are left afterwards. The seed and the smallest request that fails are printed.
 */
import * as fc from "fast-check";
import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { JsonSchema } from "../../test/helpers/from-schema.ts";
import { numberedPieces, writeScriptedModel } from "../../test/helpers/scripted-model.ts";
import { startServe } from "../bench/serve.ts";
import { ensureCompiled, ROOT } from "../compile/freshness.ts";
import { type Description, type FuzzRequest, requestsTo } from "./fuzz-requests.ts";
import { anonymousBytes, openFiles } from "./processes.ts";

const REQUESTS = 100_000;
/** Clients at once; each asks one request after the other. */
const LANES = 12;
/** Of the requests: until then memory may grow to what work takes. */
const WARM_UP_SHARE = 0.2;
/** What a runner may keep more than after the warm-up, its collector's leeway included. Bytes. */
const GROWTH_LIMIT = 48_000_000;
/** Files that a runner may have open more than before: a database's, a log's, a connection a lane that may be used again. */
const SPARE_FILES = 8 + LANES;
/** An answer that takes longer hangs. */
const HANG_MS = 10_000;
/** What ended is cleared away by then. */
const SETTLING_MS = 8000;
/** Streams that go on until the client leaves: their beginning is read. */
const ENDLESS = new Set(["GET /engines/events", "GET /engines/requests", "GET /logs"]);
const BEGINNING_MS = 100;
/** They end what is fuzzed: the runner would go, its engine, or its models. */
const DESTRUCTIVE = new Set([
  "POST /runner/stop",
  "DELETE /models/purge",
  "DELETE /models/{name}",
  "DELETE /api/delete",
  "POST /engines/uninstall-backend",
]);
/** Each says why: nothing does that, an engine or a registry failed, no room or no network, the disk is full. */
const DOCUMENTED = new Set([501, 502, 503, 507]);
const MODEL = "load/scripted:latest";
const LONGEST_SHOWN = 2000;

const requests = Number(process.argv[2] ?? REQUESTS);
const seed = Number(process.argv[3] ?? Math.floor(Math.random() * 2 ** 31));
await ensureCompiled();
const home = await mkdtemp(join(tmpdir(), "tug-fuzz-"));
const file = join(home, "scripted.gguf");
await writeScriptedModel(file, { pieces: numberedPieces(12), name: "fuzz" });
await cp(join(ROOT, "dist", "test-home", "backends"), join(home, "backends"), { recursive: true });
const failures: string[] = [];
const counts = new Map<string, number>();
let asked = 0;
let slowest = { ms: 0, route: "" };
{
  // Nothing of the network is asked for: what would be is refused with 503.
  await using runner = await startServe({ home, env: { TUG_OFFLINE: "1", TUG_PARALLEL: "4" } });
  await runner.tug(["package", "--gguf", file, MODEL]);
  const description = (await (
    await fetch(`${runner.url}/openapi.json`, local())
  ).json()) as Description;
  const arbitrary = requestsTo(description, { model: MODEL, without: DESTRUCTIVE });
  console.log(`fuzz: ${requests} requests with the seed ${seed}`);
  const run = (count: number, first: number): Promise<void> =>
    fuzz({ url: runner.url, description, arbitrary, count, first });

  await run(Math.ceil(requests * WARM_UP_SHARE), seed);
  await Bun.sleep(SETTLING_MS);
  const before = { bytes: anonymousBytes(runner.pid), files: openFiles(runner.pid) };
  await run(Math.floor(requests * (1 - WARM_UP_SHARE)), seed + LANES);
  await Bun.sleep(SETTLING_MS);
  const growth = anonymousBytes(runner.pid) - before.bytes;
  const files = openFiles(runner.pid) - before.files;
  if (growth > GROWTH_LIMIT) failures.push(`the runner grew by ${megabytes(growth)}`);
  if (files > SPARE_FILES) failures.push(`${files} descriptors are left`);
  const rows = JSON.parse(await runner.tug(["ps", "--json"])) as { requests: number }[];
  const leases = rows.reduce((sum, row) => sum + row.requests, 0);
  if (leases > 0) failures.push(`${leases} leases are left`);
  const last = await fetch(`${runner.url}/v1/chat/completions`, {
    ...local(),
    method: "POST",
    body: JSON.stringify({ model: MODEL, messages: [{ role: "user", content: "Go." }] }),
  });
  if (!last.ok) failures.push(`afterwards: ${last.status} ${(await last.text()).slice(0, 200)}`);
  console.log(
    `fuzz: ${asked} asked; ${megabytes(growth)}, ${files} descriptors and ${leases} leases more than after the warm-up`,
  );
  console.log(`fuzz: the slowest answer took ${slowest.ms} ms (${slowest.route})`);
}
for (const [what, count] of counts) console.log(`  ${count} × ${what}`);
for (const failure of failures) console.error(`fuzz: ${failure}`);
await rm(home, { recursive: true, force: true });
process.exitCode = failures.length === 0 ? 0 : 1;

interface FuzzOptions {
  readonly url: string;
  readonly description: Description;
  readonly arbitrary: fc.Arbitrary<FuzzRequest>;
  readonly count: number;
  /** Seed of the first lane. */
  readonly first: number;
}

async function fuzz({ url, description, arbitrary, count, first }: FuzzOptions): Promise<void> {
  const property = fc.asyncProperty(arbitrary, async (request) => {
    const wrong = await tryOut(url, request, description);
    if (wrong !== undefined) throw new Error(wrong);
  });
  const lanes = Array.from({ length: LANES }, async (_, lane) => {
    const numRuns = Math.ceil(count / LANES);
    const result = await fc.check(property, { seed: first + lane, numRuns });
    if (!result.failed) return;
    const { counterexample, errorInstance } = result;
    const shown = JSON.stringify(counterexample?.[0])
      .replaceAll(/(.)\1{50,}/g, (run, letter: string) => `${letter}…(${run.length})`)
      .slice(0, LONGEST_SHOWN);
    failures.push(`lane ${lane}, seed ${first + lane}: ${String(errorInstance)}\n  ${shown}`);
  });
  await Promise.all(lanes);
}

/** @returns what is wrong with the answer; undefined: nothing */
async function tryOut(
  url: string,
  request: FuzzRequest,
  description: Description,
): Promise<string | undefined> {
  asked += 1;
  const { route, method, path, headers, body, bytes, leavesAfterMs } = request;
  const staysMs = ENDLESS.has(route) ? BEGINNING_MS : leavesAfterMs;
  const signal = AbortSignal.timeout(staysMs ?? HANG_MS);
  const startedMs = performance.now();
  let status = 0;
  let text = "";
  try {
    const content = bytes === undefined ? body : Buffer.from(bytes, "base64");
    const response = await fetch(url + path, {
      ...local(),
      method,
      headers,
      signal,
      ...(content === undefined ? {} : { body: content }),
    });
    status = response.status;
    text = await response.text();
  } catch (error) {
    const hasLeft = signal.aborted && staysMs !== undefined;
    if (!hasLeft) return `${route}: ${signal.aborted ? "hangs" : String(error)}`;
  }
  const ms = Math.round(performance.now() - startedMs);
  if (ms > slowest.ms) slowest = { ms, route };
  return status < 400 ? undefined : judge(request, { status, text }, description);
}

function judge(
  { route, path, method }: FuzzRequest,
  { status, text }: { readonly status: number; readonly text: string },
  { paths, components }: Description,
): string | undefined {
  const shown = `${route} (${path.slice(0, 100)}): ${status} ${text.slice(0, 300)}`;
  if (status >= 500) {
    const what = `${status} ${route}`;
    counts.set(what, (counts.get(what) ?? 0) + 1);
    if (!DOCUMENTED.has(status)) return shown;
  }
  const pattern = route.slice(route.indexOf(" ") + 1);
  const failure = paths[pattern]?.[method.toLowerCase()]?.responses["default"]?.content;
  const ref = failure?.["application/json"]?.schema.$ref?.split("/").at(-1) ?? "";
  const schema = components.schemas[ref];
  if (schema === undefined) return `${route}: its failures are not described`;
  try {
    return fits(JSON.parse(text), schema) ? undefined : `no ${ref}: ${shown}`;
  } catch {
    // A client that left got a part of it.
    return text === "" ? undefined : `no JSON: ${shown}`;
  }
}

/** As far as shapes of errors go: members that are required, types of texts and objects. */
function fits(value: unknown, { type, properties = {}, required = [] }: JsonSchema): boolean {
  if (type === "string") return typeof value === "string" && value !== "";
  if (type !== "object") return true;
  if (typeof value !== "object" || value === null) return false;
  const members = value as Readonly<Record<string, unknown>>;
  return required.every((name) => name in members && fits(members[name], properties[name] ?? {}));
}

/** HTTP_PROXY would be asked about this machine. Bun knows `false`, its types do not. */
function local(): object {
  return { proxy: false };
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(0)} MB`;
}
