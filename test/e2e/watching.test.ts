import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import type { RequestRecord, RequestsOfModel } from "../../src/api/requests.ts";
import { tugBinary } from "../helpers/binary.ts";
import { eventually } from "../helpers/eventually.ts";
import { QUESTION } from "../helpers/pebble.ts";
import { enginesOf } from "../helpers/processes.ts";
import { writeRandomModel } from "../helpers/random-model.ts";
import { cleanEnvironment } from "../helpers/run-cli.ts";
import { type CheckedSample, checkMetrics } from "../helpers/strict-metrics.ts";
import { type TugHome, tugHome } from "../helpers/tug-home.ts";

setDefaultTimeout(60_000);

const SETUP_TIMEOUT_MS = 240_000;
/** Nothing else in a home says it. */
const SECRET = "quixotic-marmalade-7391";
const NOISE = "me/noise";
const TRACE_ID = "0af7651916cd43dd8448eb211c80319c";

describe("a runner with two models", () => {
  let home: TugHome;
  beforeAll(async () => {
    home = await tugHome({ engine: true });
    const path = join(home.path, "noise.gguf");
    const shape = { layers: 1, embedding: 64, heads: 2, feedForward: 64, context: 512 } as const;
    await writeRandomModel(path, { ...shape, vocabulary: 512 });
    await home.tug(["package", "--gguf", path, NOISE]);
    for (const model of ["pebble", NOISE]) {
      expect(await home.tug(["run", "-d", model])).toMatchObject({ exitCode: 0 });
    }
    await ask(home, { model: "pebble", stream: true });
    await ask(home, { model: NOISE, max_tokens: 4 });
  }, SETUP_TIMEOUT_MS);
  afterAll(async () => {
    await home[Symbol.asyncDispose]();
  });

  test("has metrics of its own and of its engines, in one valid text", async () => {
    // An answer is counted a moment after its client has had all of it.
    await eventually(async () => sum(await scrape(home), "tug_requests_total") >= 2);
    const samples = await scrape(home);

    const of = (name: string): Record<string, string>[] =>
      samples.filter((sample) => sample.name === name).map(({ labels }) => labels);
    const worker = { backend: "llama.cpp", mode: "completion" };
    for (const name of ["llamacpp:prompt_tokens_total", "tug_worker_busy_slots"]) {
      expect(of(name)).toHaveLength(2);
      expect(of(name)).toContainEqual({ ...worker, model: "pebble", worker: expect.any(String) });
      expect(of(name)).toContainEqual({ ...worker, model: NOISE, worker: expect.any(String) });
    }
    expect(sum(samples, "llamacpp:tokens_predicted_total", { model: NOISE })).toBe(4);
    expect(sum(samples, "tug_tokens_total", { model: NOISE, direction: "output" })).toBe(4);
    expect(sum(samples, "tug_workers", { state: "ready" })).toBe(2);
    expect(sum(samples, "tug_loads_total", { result: "ok" })).toBe(2);
    expect(sum(samples, "tug_time_to_first_token_seconds_count", { model: "pebble" })).toBe(1);
    expect(sum(samples, "tug_engine_scrape_failures_total")).toBe(0);
    for (const kind of ["estimate", "actual"]) {
      const memory = sum(samples, "tug_worker_memory_bytes", { kind, model: "pebble" });
      expect([kind, memory > 1e6]).toEqual([kind, true]);
    }
    expect(samples.map(({ labels }) => JSON.stringify(labels)).join()).not.toContain(QUESTION);
  });

  test("shows the requests that were made, and one of them whole", async () => {
    const [asked] = await requestsOf(home, "--model", "pebble");
    const { stdout: table } = await home.tug(["requests"]);
    const { stdout: one } = await home.tug(["requests", asked?.id ?? ""]);

    expect(asked).toMatchObject({
      model: "pebble",
      mode: "completion",
      dialect: "openai",
      backend: "llama.cpp",
      status_code: 200,
      stream: true,
      output_tokens: expect.any(Number),
      finish_reasons: ["stop"],
    });
    expect(table).toContain(QUESTION);
    expect(table).toContain(NOISE);
    expect(one).toContain(`> ${QUESTION}`);
    expect(one).toContain("Paris");
  });

  test("shows requests as they are answered, and ends with the runner's words or its reader", async () => {
    const follower = Bun.spawn([await tugBinary(), "requests", "-f", "--model", "pebble"], {
      env: { ...cleanEnvironment(), ...home.env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    const decoder = new TextDecoder();
    let seen = "";
    const reading = (async () => {
      for await (const bytes of follower.stdout) seen += decoder.decode(bytes, { stream: true });
    })();

    // It may not be there yet when the first one is asked.
    await eventually(async () => {
      await ask(home, { model: NOISE, max_tokens: 1 });
      await ask(home, { model: "pebble" });
      return seen !== "";
    }, 30_000);
    follower.kill("SIGINT");
    await reading;
    const code = await follower.exited;

    expect([code, await follower.stderr.text()]).toEqual([130, ""]);
    const lines = seen.trimEnd().split("\n");
    const line = /^\d\d:\d\d:\d\d \S+ pebble 200 \S+ \d+\+\d+ What is the capital of France\?$/;
    for (const one of lines) expect(one).toMatch(line);
  });

  test("sends a request again: to the same model, to another one, and compares", async () => {
    const [asked] = await requestsOf(home, "--model", "pebble");
    const id = asked?.id ?? "";

    const again = await home.tug(["replay", id]);
    const same = await home.tug(["replay", id, "--diff"]);
    const other = await home.tug(["replay", id, "--model", NOISE, "--diff"]);
    const unknown = await home.tug(["replay", "no-such-id"]);

    expect(again).toMatchObject({ exitCode: 0, stderr: "" });
    expect(again.stdout).toContain("Paris");
    expect(same).toMatchObject({ exitCode: 0, stdout: "The answers are the same.\n" });
    expect(other.exitCode).toBe(0);
    expect(other.stdout).toMatch(/^- .*Paris/m);
    expect(other.stdout).toMatch(/^\+ /m);
    expect(unknown.exitCode).toBe(1);
    expect(unknown.stderr).toMatch(/^error: .*no-such-id.*\nhint: .+\n$/);
  });

  test("shows nobody over TCP what others asked, nor lets them have it logged", async () => {
    const [asked] = await requestsOf(home);
    const status = async (path: string, init?: RequestInit): Promise<number> =>
      (await fetch(home.url + path, init)).status;
    const verbose = { model: "pebble", "raw-runtime-flags": "-v" };

    expect(await status("/engines/requests")).toBe(403);
    expect(await status(`/engines/requests/${asked?.id}`)).toBe(403);
    expect(await status("/engines/requests", { method: "DELETE" })).toBe(403);
    expect(await status("/logs")).toBe(403);
    expect(await status("/logs?follow=true&model=pebble")).toBe(403);
    expect(await status("/logs?no-engines=true")).toBe(200);
    expect(
      await status("/engines/_configure", { method: "POST", body: JSON.stringify(verbose) }),
    ).toBe(403);
    expect((await requestsOf(home)).length).toBeGreaterThan(0);
  });

  test("keeps what was asked to its user, on the disk as well", async () => {
    await ask(home, { model: "pebble", content: SECRET });
    await eventually(async () => (await onDisk(home)).includes(SECRET));

    for (const name of await databaseFiles(home)) {
      const { mode } = await stat(join(home.path, name));
      if (process.platform !== "win32") expect([name, mode & 0o777]).toEqual([name, 0o600]);
    }
    expect((await home.tug(["logs"])).stdout).not.toContain(SECRET);

    expect(await home.tug(["requests", "--clear"])).toMatchObject({ exitCode: 0 });

    expect(await onDisk(home)).not.toContain(SECRET);
    expect(await requestsOf(home)).toEqual([]);
  });
});

describe("a runner with an API key", () => {
  test("shows requests and logs over TCP to who has it", async () => {
    await using home = await tugHome({ engine: true, env: { TUG_API_KEY: "k" } });
    await home.tug(["run", "pebble", "hi"]);
    const key = { headers: { authorization: "Bearer k" } };

    const answer = await fetch(`${home.url}/engines/requests`, key);
    const groups = (await answer.json()) as RequestsOfModel[];

    expect(groups).toMatchObject([{ model: "docker.io/ai/pebble:latest", count: 1 }]);
    for (const path of ["/engines/requests", "/logs", "/metrics"]) {
      expect((await fetch(home.url + path)).status).toBe(401);
      expect((await fetch(home.url + path, key)).status).toBe(200);
    }
  });
});

describe("a runner that is to tell less", () => {
  const quiet = sharedQuietHome();

  test("records nothing: no prompt is on the disk, while it runs and afterwards", async () => {
    await quiet().tug(["start-runner"]);
    await ask(quiet(), { model: "pebble", content: SECRET });
    await ask(quiet(), { model: "pebble", content: SECRET, stream: true });

    const listed = await requestsOf(quiet());
    const follow = await quiet().tug(["requests", "-f"]);
    const during = await onDisk(quiet());
    await quiet().tug(["stop-runner"]);

    expect(listed).toEqual([]);
    expect(follow.exitCode).toBe(1);
    expect(follow.stderr).toContain("record_requests = true");
    // It is the right file: the ledger is in it.
    expect(during).toContain("CREATE TABLE requests");
    expect(during).not.toContain(SECRET);
    expect(await onDisk(quiet())).not.toContain(SECRET);
  });

  test("has no metrics, and says how to get them", async () => {
    await quiet().tug(["run", "-d", "pebble"]);

    const response = await fetch(`${quiet().url}/metrics`);

    expect(response.status).toBe(404);
    expect(await response.text()).toContain("TUG_METRICS=1");
  });
});

describe("traces", () => {
  test("go to a collector, in the client's trace, without a word of the prompt", async () => {
    await using collector = startCollector();
    const env = {
      OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
      OTEL_EXPORTER_OTLP_HEADERS: "x-tenant=a%20b",
      OTEL_SERVICE_NAME: "tug-test",
    };
    await using home = await tugHome({ engine: true, env });
    await home.tug(["start-runner"]);

    const traceparent = `00-${TRACE_ID}-b7ad6b7169203331-01`;
    await ask(home, { model: "pebble", content: SECRET, stream: true }, { traceparent });
    await eventually(() => collector.all.length > 0);
    const batches = collector.all;

    expect(batches[0]?.headers.get("x-tenant")).toBe("a b");
    expect(JSON.stringify(batches.map(({ body }) => body))).not.toContain(SECRET);
    const [resource] = batches[0]?.body.resourceSpans ?? [];
    expect(valuesOf(resource?.resource.attributes)["service.name"]).toBe("tug-test");
    const spans = resource?.scopeSpans[0]?.spans ?? [];
    expect(spans.map(({ name }) => name)).toEqual(["request", "queue", "load", "generate"]);
    const [root, ...children] = spans;
    expect(root).toMatchObject({ traceId: TRACE_ID, parentSpanId: "b7ad6b7169203331" });
    for (const child of children) {
      expect(child).toMatchObject({ traceId: TRACE_ID, parentSpanId: root?.spanId });
    }
    expect(valuesOf(spans.at(-1)?.attributes)).toMatchObject({
      "gen_ai.operation.name": "chat",
      "gen_ai.request.model": "pebble",
      "gen_ai.provider.name": "llama.cpp",
      "gen_ai.usage.output_tokens": expect.stringMatching(/^[1-9]\d*$/),
    });
    const [load, generate] = [spans[2], spans[3]];
    expect(BigInt(load?.endTimeUnixNano ?? 0)).toBeGreaterThan(
      BigInt(load?.startTimeUnixNano ?? 0),
    );
    expect(BigInt(generate?.startTimeUnixNano ?? 0)).toBeGreaterThanOrEqual(
      BigInt(load?.endTimeUnixNano ?? 0),
    );
  });
});

describe("tug serve --log-format json", () => {
  test("writes an object a line whatever goes wrong: a collector that is down, an engine that is killed", async () => {
    await using home = await tugHome({
      engine: true,
      env: { OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.1:1", TUG_LOG_LEVEL: "debug" },
    });
    const serve = Bun.spawn([await tugBinary(), "serve", "--log-format", "json"], {
      env: { ...cleanEnvironment(), ...home.env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    const said = serve.stderr.text();
    await eventually(async () => (await home.tug(["status"])).exitCode === 0);

    await ask(home, { model: "pebble", content: 'two\nlines "quoted" model=x reason=y' });
    for (const { pid } of await enginesOf(home.path)) process.kill(pid, "SIGKILL");
    await eventually(async () => (await home.tug(["ps", "--json"])).stdout.trim() === "[]");
    await fetch(`${home.url}/v1/chat/completions`, { method: "POST", body: "no json\n{" });
    await ask(home, { model: "pebble" });
    await home.tug(["stop-runner"]);

    const lines = (await said).trimEnd().split("\n");
    expect([await serve.exited, await serve.stdout.text()]).toEqual([0, ""]);
    const objects = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
    for (const one of objects) {
      expect(one).toMatchObject({
        time: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
        level: expect.stringMatching(/^(?:error|warn|info|debug)$/),
        message: expect.any(String),
      });
    }
    expect(objects).toContainEqual(
      expect.objectContaining({ level: "warn", scope: "server", message: "traces not taken" }),
    );
    expect(await said).not.toContain("quoted");
  });
});

// --- internal ---

/** One home for what is turned off, of which neither disturbs the other. */
function sharedQuietHome(): () => TugHome {
  let home: TugHome | undefined;
  beforeAll(async () => {
    const env = { TUG_RECORD_REQUESTS: "0", DISABLE_METRICS: "1" };
    home = await tugHome({ engine: true, env });
  }, SETUP_TIMEOUT_MS);
  afterAll(async () => {
    await home?.[Symbol.asyncDispose]();
  });
  return () => {
    if (home === undefined) throw new Error("the home is there once the tests run");
    return home;
  };
}

interface Question {
  readonly model: string;
  readonly content?: string;
  readonly stream?: boolean;
  readonly max_tokens?: number;
}

/** Asks, and reads the whole answer. @throws if there is none */
async function ask(
  home: TugHome,
  { content = QUESTION, ...question }: Question,
  headers: Record<string, string> = {},
): Promise<string> {
  const messages = [{ role: "user", content }];
  const response = await fetch(`${home.url}/v1/chat/completions`, {
    method: "POST",
    headers,
    body: JSON.stringify({ temperature: 0, ...question, messages }),
  });
  const text = await response.text();
  if (response.status !== 200) throw new Error(`${response.status}: ${text}`);
  return text;
}

async function scrape(home: TugHome): Promise<CheckedSample[]> {
  const response = await fetch(`${home.url}/metrics`);
  expect(response.headers.get("content-type")).toStartWith("text/plain; version=0.0.4");
  return checkMetrics(await response.text());
}

/** Of all samples of the name that have these labels. */
function sum(
  samples: readonly CheckedSample[],
  name: string,
  labels: Readonly<Record<string, string>> = {},
): number {
  return samples
    .filter((sample) => sample.name === name)
    .filter((sample) => Object.entries(labels).every(([key, is]) => sample.labels[key] === is))
    .reduce((total, { value }) => total + value, 0);
}

async function requestsOf(home: TugHome, ...args: string[]): Promise<RequestRecord[]> {
  const { stdout, exitCode } = await home.tug(["requests", "--json", ...args]);
  expect(exitCode).toBe(0);
  return (JSON.parse(stdout) as RequestsOfModel[]).flatMap(({ records }) => records);
}

async function databaseFiles(home: TugHome): Promise<string[]> {
  const names = await readdir(home.path, { recursive: true });
  return names.filter((name) => /(?:^|\/)tug\.db/.test(name));
}

/** All that is in tug.db and beside it. */
async function onDisk(home: TugHome): Promise<string> {
  const names = await databaseFiles(home);
  expect(names.length).toBeGreaterThan(0);
  const texts = await Promise.all(names.map((name) => readFile(join(home.path, name), "latin1")));
  return texts.join("\n");
}

interface OtlpAttribute {
  readonly key: string;
  readonly value: Readonly<Record<string, unknown>>;
}

interface OtlpSpan {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId: string;
  readonly name: string;
  readonly startTimeUnixNano: string;
  readonly endTimeUnixNano: string;
  readonly attributes: readonly OtlpAttribute[];
}

interface OtlpBatch {
  readonly resourceSpans: readonly {
    readonly resource: { readonly attributes: readonly OtlpAttribute[] };
    readonly scopeSpans: readonly { readonly spans: readonly OtlpSpan[] }[];
  }[];
}

function startCollector() {
  const all: { readonly headers: Headers; readonly body: OtlpBatch }[] = [];
  const server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    async fetch(request) {
      if (new URL(request.url).pathname !== "/v1/traces")
        return new Response(null, { status: 404 });
      all.push({ headers: request.headers, body: (await request.json()) as OtlpBatch });
      return Response.json({});
    },
  });
  return {
    all,
    url: `http://127.0.0.1:${server.port}`,
    [Symbol.asyncDispose]: () => server.stop(true),
  };
}

function valuesOf(attributes: readonly OtlpAttribute[] = []): Record<string, unknown> {
  return Object.fromEntries(attributes.map(({ key, value }) => [key, Object.values(value)[0]]));
}
