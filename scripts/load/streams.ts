/**
 * Very many clients at once: `bun scripts/load/streams.ts [STREAMS] [DROPS]`.
 *
 * STREAMS chats are streamed at the same time by a model that always says the same, through an engine with eight slots:
 * each must come whole, with the right text, and the runner must stay small. Then DROPS connections are opened and
 * dropped at random moments of a request: nothing may be left of them. Exit 1 otherwise.
 */
import { connect, type Socket } from "node:net";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { writeScriptedModel } from "../../test/helpers/scripted-model.ts";
import { ensureCompiled } from "../compile/freshness.ts";
import { startServe } from "../bench/serve.ts";
import { eachAtOnce, seeded } from "./client.ts";
import { residentBytes, openFiles } from "./processes.ts";

const STREAMS = 1000;
const DROPS = 10_000;
const SLOTS = 8;
/** Of memory that the runner has, its program's included. Bytes. */
const MEMORY_LIMIT = 120_000_000;
/** Connections that are being dropped at once. */
const DROPPED_AT_ONCE = 200;
/** The longest that a connection lives before it is dropped. */
const LONGEST_LIFE_MS = 40;
const SAMPLE_MS = 50;
/** What ended is cleared away by then. */
const SETTLING_MS = 5000;
/** Files that a runner may have open more than before: a database's, a log's. */
const SPARE_FILES = 8;
/** Engines trim the ends of an answer. */
const PIECES = Array.from({ length: 60 }, (_, index) => (index === 0 ? "word" : ` word${index}`));
const MODEL = "load/scripted";

const streams = Number(process.argv[2] ?? STREAMS);
const drops = Number(process.argv[3] ?? DROPS);
await ensureCompiled();
const directory = await mkdtemp(join(tmpdir(), "tug-streams-"));
const file = join(directory, "scripted.gguf");
await writeScriptedModel(file, { pieces: PIECES });
await using runner = await startServe();
await runner.tug(["install-runner"]);
await runner.tug(["package", "--gguf", file, MODEL]);
await runner.tug(["configure", MODEL, "--parallel", String(SLOTS)]);
const { hostname, port } = new URL(runner.url);
const random = seeded(3);
const failures: string[] = [];

await stream();
const filesBefore = openFiles(runner.pid);
let peak = 0;
const sampler = setInterval(() => (peak = Math.max(peak, residentBytes(runner.pid))), SAMPLE_MS);
const startedMs = performance.now();
const answers = await Promise.all(Array.from({ length: streams }, () => stream()));
const seconds = (performance.now() - startedMs) / 1000;
clearInterval(sampler);
const wrong = answers.filter((answer) => answer !== PIECES.join(""));
if (wrong.length > 0) failures.push(`${wrong.length} answers are wrong, such as: ${wrong[0]}`);
if (peak > MEMORY_LIMIT) failures.push(`the runner took ${megabytes(peak)}`);
console.log(
  `streams: ${streams - wrong.length} of ${streams} whole in ${seconds.toFixed(1)} s; the runner had ${megabytes(peak)} at most`,
);

await eachAtOnce(Array.from({ length: drops }), DROPPED_AT_ONCE, drop);
await Bun.sleep(SETTLING_MS);
const after = await stream();
if (after !== PIECES.join("")) failures.push(`after the drops: ${after}`);
const rows = JSON.parse(await runner.tug(["ps", "--json"])) as { requests: number }[];
const leases = rows.reduce((sum, row) => sum + row.requests, 0);
if (leases > 0) failures.push(`${leases} leases are left`);
const files = openFiles(runner.pid) - filesBefore;
if (files > SPARE_FILES) failures.push(`${files} descriptors are left`);
const left = residentBytes(runner.pid);
if (left > MEMORY_LIMIT) failures.push(`the runner has ${megabytes(left)} after the drops`);
console.log(
  `streams: ${drops} connections dropped; ${leases} leases and ${files} descriptors more than before, ${megabytes(left)}`,
);
for (const failure of failures) console.error(`streams: ${failure}`);
await rm(directory, { recursive: true });
process.exitCode = failures.length === 0 ? 0 : 1;

/** @returns the text, or what went wrong. Never throws */
async function stream(): Promise<string> {
  try {
    const raw = await exchange(
      requestText({ stream: true, messages: [{ role: "user", content: "Go." }] }),
    );
    const body = raw.slice(raw.indexOf("\r\n\r\n"));
    if (!raw.startsWith("HTTP/1.1 200") || !body.includes("data: [DONE]")) return raw.slice(0, 300);
    const events = body.matchAll(/^data: (\{.*\})\r?$/gm);
    return Array.from(events, ([, json = ""]) => {
      const chunk = JSON.parse(json) as { choices: { delta: { content?: string | null } }[] };
      return chunk.choices[0]?.delta.content ?? "";
    }).join("");
  } catch (error) {
    return String(error);
  }
}

function requestText(body: object): string {
  const json = JSON.stringify({ model: MODEL, ...body });
  return `POST /v1/chat/completions HTTP/1.1\r\nhost: ${hostname}:${port}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(json)}\r\n\r\n${json}`;
}

/** What came until the other side closed. @throws on a reset */
function exchange(text: string): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const chunks: Buffer[] = [];
  const socket = open();
  socket.on("data", (chunk) => chunks.push(Buffer.from(chunk)));
  socket.on("end", () => resolve(Buffer.concat(chunks).toString()));
  socket.on("error", reject);
  socket.write(text);
  return promise;
}

/** Sends some of a request, waits a little, and goes. */
async function drop(): Promise<void> {
  const text = requestText({
    stream: random() < 0.5,
    messages: [{ role: "user", content: "Go." }],
  });
  const part = random() < 0.3 ? text.slice(0, Math.floor(random() * text.length)) : text;
  const socket = open();
  socket.on("error", () => undefined);
  socket.write(part);
  await Bun.sleep(random() * LONGEST_LIFE_MS);
  if (random() < 0.5) socket.destroy();
  else socket.resetAndDestroy();
}

function open(): Socket {
  return connect({ host: hostname, port: Number(port) });
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(0)} MB`;
}
