/**
 * What clients of each dialect get, byte for byte, from the compiled binary and the real engine. The models say what
 * their scripts say; names, times, durations and what the engine had cached are replaced, nothing else.
 *
 * The texts are in `test/fixtures/golden/<dialect>/<case>.txt`: the stream, then the whole answer. They were read
 * against the documentation of their dialects. `WRITE_FIXTURES=1` writes those that have changed, to be read again.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { eventually } from "../helpers/eventually.ts";
import {
  bytePieces,
  numberedPieces,
  type Script,
  toolCallPiece,
  writeScriptedModel,
} from "../helpers/scripted-model.ts";
import { type TugHome, tugHome } from "../helpers/tug-home.ts";

setDefaultTimeout(60_000);

const GOLDEN = join(import.meta.dir, "..", "fixtures", "golden");
const WHOLE = "\n--- whole ---\n";
const QUESTION = "What is the weather?";
const STOP = "w3";
const LIMIT = 3;
const PARAMETERS = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
};

const SCRIPTS = {
  text: { pieces: ["Hello", ", ", "world", "!"] },
  reasoning: { pieces: ["<think>\n", "Hm", "m.", "\n</think>\n\n", "Yes", "."] },
  "one-call": {
    pieces: [
      "<tool_call>\n",
      '{"name": "get_',
      'weather", "arguments": ',
      '{"city": ',
      '"Paris"}}',
      "\n</tool_call>",
    ],
  },
  "two-calls": {
    pieces: [
      "Both. ",
      toolCallPiece("get_weather", { city: "Paris" }),
      "\n",
      toolCallPiece("get_weather", { city: "Rome" }),
    ],
  },
  "multi-byte": {
    pieces: ["Gr", Uint8Array.of(0xc3), Uint8Array.of(0xbc), "ße ", ...bytePieces("🍕"), "!"],
  },
  long: { pieces: numberedPieces(2000) },
} satisfies Record<string, Script>;

/** With a prefix of their dialect, or as the engine makes those of calls. */
const ID = /"((?:chatcmpl-|msg_|resp_|rs_|fc_|toolu_)(?=[0-9A-Za-z]{24,}"))?([0-9A-Za-z]{24,})"/g;
/** Anthropic counts the tokens of a prompt apart: how many there are in all does not depend on the cache. */
const CACHED_APART =
  /"input_tokens":(\d+)(,"cache_creation_input_tokens":0,"cache_read_input_tokens":)(\d+)/g;

type Model = keyof typeof SCRIPTS;

/** What is asked for, whatever the dialect calls it. */
interface Asked {
  readonly model: Model;
  readonly hasTools?: boolean;
  readonly isCut?: "stop" | "length";
}

const CASES: Readonly<Record<string, Asked>> = {
  text: { model: "text" },
  reasoning: { model: "reasoning" },
  "one-call": { model: "one-call", hasTools: true },
  "two-calls": { model: "two-calls", hasTools: true },
  "multi-byte": { model: "multi-byte" },
  stop: { model: "long", isCut: "stop" },
  length: { model: "long", isCut: "length" },
};

interface Dialect {
  readonly path: string;
  readonly body: (asked: Asked & { readonly stream: boolean }) => object;
  /** Cases that its API has no words for. */
  readonly lacks: readonly string[];
  readonly contentType: string;
}

const DIALECTS: Readonly<Record<string, Dialect>> = {
  "openai-chat": {
    path: "/v1/chat/completions",
    body: ({ hasTools, isCut, stream }) => ({
      messages: [{ role: "user", content: QUESTION }],
      ...(stream && { stream_options: { include_usage: true } }),
      ...(hasTools === true && { tools: [{ type: "function", function: openaiTool() }] }),
      ...(isCut === "stop" && { stop: [STOP] }),
      ...(isCut === "length" && { max_tokens: LIMIT }),
    }),
    lacks: [],
    contentType: "text/event-stream",
  },
  "openai-responses": {
    path: "/v1/responses",
    body: ({ hasTools, isCut }) => ({
      input: QUESTION,
      ...(hasTools === true && { tools: [{ type: "function", strict: false, ...openaiTool() }] }),
      ...(isCut === "length" && { max_output_tokens: LIMIT }),
    }),
    lacks: ["stop"],
    contentType: "text/event-stream",
  },
  anthropic: {
    path: "/v1/messages",
    body: ({ hasTools, isCut }) => ({
      messages: [{ role: "user", content: QUESTION }],
      max_tokens: isCut === "length" ? LIMIT : 4000,
      ...(hasTools === true && { tools: [{ name: "get_weather", input_schema: PARAMETERS }] }),
      ...(isCut === "stop" && { stop_sequences: [STOP] }),
    }),
    lacks: [],
    contentType: "text/event-stream",
  },
  "ollama-chat": {
    path: "/api/chat",
    body: ({ hasTools, isCut }) => ({
      messages: [{ role: "user", content: QUESTION }],
      ...(hasTools === true && { tools: [{ type: "function", function: openaiTool() }] }),
      ...ollamaOptions(isCut),
    }),
    lacks: [],
    contentType: "application/x-ndjson",
  },
  "ollama-generate": {
    path: "/api/generate",
    body: ({ isCut }) => ({ prompt: QUESTION, ...ollamaOptions(isCut) }),
    lacks: ["one-call", "two-calls"],
    contentType: "application/x-ndjson",
  },
};

let home: TugHome;
beforeAll(async () => {
  home = await tugHome({ engine: true });
  for (const [name, script] of Object.entries(SCRIPTS)) {
    const path = join(home.path, `${name}.gguf`);
    await writeScriptedModel(path, script);
    expect(await home.tug(["package", "--gguf", path, `me/${name}`])).toMatchObject({
      exitCode: 0,
    });
  }
  expect(await home.tug(["start-runner"])).toMatchObject({ exitCode: 0 });
}, 240_000);
afterAll(async () => {
  await home[Symbol.asyncDispose]();
});

describe.each(Object.entries(CASES))("%s", (name, asked) => {
  beforeAll(async () => {
    // A stream that waits for its model has comments in it.
    await load(asked.model);
  });

  const having = Object.entries(DIALECTS).filter(([, { lacks }]) => !lacks.includes(name));
  test.each(having)("%s", async (dialectName, dialect) => {
    const stream = await send(dialect, { asked, stream: true });
    const whole = await send(dialect, { asked, stream: false });

    expect(stream.headers.get("content-type")).toStartWith(dialect.contentType);
    expect(whole.headers.get("content-type")).toStartWith("application/json");
    await expectGolden(
      join(dialectName, `${name}.txt`),
      settle(await stream.text()) + WHOLE + settle(await whole.text()),
    );
  });
});

describe("abort", () => {
  const COUNT = 12;
  beforeAll(async () => {
    await load("long");
  });

  test.each(Object.entries(DIALECTS))("%s", async (dialectName, dialect) => {
    const left = new AbortController();
    const response = await send(dialect, {
      asked: { model: "long" },
      stream: true,
      signal: left.signal,
    });
    const text = await beginningOf(response, { dialect, count: COUNT });
    const wasBusy = await isBusy("long");

    left.abort();

    await expectGolden(join(dialectName, "abort.txt"), settle(text));
    expect(wasBusy).toBe(true);
    await eventually(async () => !(await isBusy("long")));
  });
});

test("no golden text is left over", async () => {
  const names = Object.entries(DIALECTS).flatMap(([dialect, { lacks }]) =>
    [...Object.keys(CASES), "abort"]
      .filter((name) => !lacks.includes(name))
      .map((name) => join(dialect, `${name}.txt`)),
  );
  const files = await readdir(GOLDEN, { recursive: true });

  expect(files.filter((file) => file.endsWith(".txt")).toSorted()).toEqual(names.toSorted());
});

function openaiTool(): object {
  return { name: "get_weather", parameters: PARAMETERS };
}

function ollamaOptions(isCut: Asked["isCut"]): object {
  if (isCut === "stop") return { options: { stop: [STOP] } };
  return isCut === "length" ? { options: { num_predict: LIMIT } } : {};
}

interface Sending {
  readonly asked: Asked;
  readonly stream: boolean;
  readonly signal?: AbortSignal;
}

async function send(dialect: Dialect, { asked, stream, signal }: Sending): Promise<Response> {
  const response = await fetch(`${home.url}${dialect.path}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      model: `me/${asked.model}`,
      stream,
      ...dialect.body({ ...asked, stream }),
    }),
    // A proxy of the environment has no way to this loopback.
    proxy: false,
    ...(signal && { signal }),
  });
  expect(response.status).toBe(200);
  return response;
}

async function load(model: Model): Promise<void> {
  const response = await send(DIALECTS["ollama-chat"] as Dialect, {
    asked: { model, isCut: "length" },
    stream: false,
  });
  await response.text();
}

/** The first events of a stream, which is left open. */
async function beginningOf(
  response: Response,
  { dialect, count }: { readonly dialect: Dialect; readonly count: number },
): Promise<string> {
  const end = dialect.contentType === "text/event-stream" ? "\n\n" : "\n";
  const decoder = new TextDecoder();
  const reader = response.body?.getReader();
  let text = "";
  while (text.split(end).length <= count) {
    const read = await reader?.read();
    if (read?.value === undefined) throw new Error(`the stream ended after:\n${text}`);
    text += decoder.decode(read.value, { stream: true });
  }
  return text
    .split(end)
    .slice(0, count)
    .map((event) => event + end)
    .join("");
}

/** Replaces what differs from one time to the next: of ids, which are the same stays to be seen. */
function settle(text: string): string {
  const ids: string[] = [];
  const nameOf = (id: string): number => {
    if (!ids.includes(id)) ids.push(id);
    return ids.indexOf(id) + 1;
  };
  return text
    .replaceAll(
      ID,
      (_, prefix: string | undefined, id: string) => `"${prefix ?? ""}ID${nameOf(id)}"`,
    )
    .replaceAll(/("(?:created|created_at|completed_at)":)\d+/g, "$1TIME")
    .replaceAll(/("created_at":)"\d{4}-\d\d-\d\dT[0-9:.]+Z"/g, '$1"TIME"')
    .replaceAll(/("\w+_duration":)\d+/g, "$1NANOSECONDS")
    .replaceAll(/"timings":\{[^{}]*\}/g, '"timings":{}')
    .replaceAll(/("system_fingerprint":)"[^"]+"/g, '$1"BUILD"')
    .replaceAll(/("cached_tokens":)\d+/g, "$1CACHED")
    .replaceAll(CACHED_APART, (...[, rest, between, cached]: string[]) => {
      return `"input_tokens":${Number(rest) + Number(cached)} - CACHED${between}CACHED`;
    });
}

async function expectGolden(name: string, text: string): Promise<void> {
  const file = Bun.file(join(GOLDEN, name));
  if (process.env["WRITE_FIXTURES"] === "1") await file.write(text);
  expect(text).toBe(await file.text());
}

async function isBusy(model: Model): Promise<boolean> {
  const response = await fetch(`${home.url}/engines/ps`, { proxy: false });
  const workers = (await response.json()) as { model_name: string; requests: number }[];
  const worker = workers.find(({ model_name: name }) => name.includes(`me/${model}`));
  if (worker === undefined) throw new Error(`no worker has ${model}`);
  return worker.requests > 0;
}
