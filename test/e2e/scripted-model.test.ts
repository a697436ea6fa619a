/** The tests' scripted models on the real engine: what they say, and in which pieces. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import {
  bytePieces,
  numberedPieces,
  type Script,
  toolCallPiece,
  writeScriptedModel,
} from "../helpers/scripted-model.ts";
import { type TugHome, tugHome } from "../helpers/tug-home.ts";

setDefaultTimeout(60_000);

const PARIS = { city: "Paris" };
const ROME = { city: "Rome" };
const TOOLS = [
  {
    type: "function",
    function: {
      name: "get_weather",
      parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
    },
  },
];

const SCRIPTS = {
  text: { pieces: ["Hello", ", ", "world", "!", "\n", "Bye."] },
  split: { pieces: ["Gr", Uint8Array.of(0xc3), Uint8Array.of(0xbc), "ße ", ...bytePieces("🍕")] },
  bytes: { pieces: bytePieces("abba 🍕🍕 baba") },
  thinking: { pieces: ["<think>\n", "Hm", "m.", "\n</think>\n\n", "Yes", "."] },
  tool: {
    pieces: [
      "<tool_call>\n",
      '{"name": "get_',
      'weather", "arguments": ',
      '{"city": "Paris"}}',
      "\n</tool_call>",
    ],
    afterTool: ["It is", " sunny."],
  },
  two: {
    pieces: [
      "Both. ",
      toolCallPiece("get_weather", PARIS),
      "\n",
      toolCallPiece("get_weather", ROME),
    ],
  },
  long: { pieces: numberedPieces(1000), context: 8192 },
} satisfies Record<string, Script>;

interface Message {
  readonly content: string | null;
  readonly reasoning_content?: string;
  readonly tool_calls?: { id: string; function: { name: string; arguments: string } }[];
}

let home: TugHome;
beforeAll(async () => {
  home = await tugHome({ engine: true });
  for (const [name, script] of Object.entries(SCRIPTS)) {
    const path = join(home.path, `${name}.gguf`);
    await writeScriptedModel(path, script);
    const packaged = await home.tug(["package", "--gguf", path, `me/${name}`]);
    expect(packaged).toMatchObject({ exitCode: 0 });
  }
  expect(await home.tug(["start-runner"])).toMatchObject({ exitCode: 0 });
}, 240_000);
afterAll(async () => {
  await home[Symbol.asyncDispose]();
});

describe("a scripted model", () => {
  test("says its text to any prompt, at any temperature", async () => {
    expect((await ask("text", { temperature: 2 })).content).toBe("Hello, world!\nBye.");
    const response = await post("/v1/completions", { model: "me/text", prompt: "abc", top_p: 1 });
    const { choices } = (await response.json()) as { choices: { text: string }[] };
    expect(choices[0]?.text).toBe("Hello, world!\nBye.");
  });

  test("has characters that are split over tokens, and any byte once", async () => {
    expect((await ask("split")).content).toBe("Grüße 🍕");
    expect(await streamed("split")).toEqual(["Gr", "ü", "ße ", "🍕"]);
    expect((await ask("bytes")).content).toBe("abba 🍕🍕 baba");
  });

  test("thinks before it answers", async () => {
    expect(await ask("thinking")).toMatchObject({
      reasoning_content: expect.stringContaining("Hmm."),
      content: "Yes.",
    });
  });

  test("calls a tool, and speaks when it has the result", async () => {
    const called = await ask("tool", { tools: TOOLS });
    const [call] = called.tool_calls ?? [];
    const result = { role: "tool", tool_call_id: call?.id, content: "sun" };
    const messages = [{ role: "user", content: "Weather?" }, called, result];

    expect([call?.function.name, JSON.parse(call?.function.arguments ?? "")]).toEqual([
      "get_weather",
      PARIS,
    ]);
    expect((await ask("tool", { tools: TOOLS, messages })).content).toBe("It is sunny.");
  });

  test("calls two tools after a word", async () => {
    const { content, tool_calls: calls = [] } = await ask("two", { tools: TOOLS });

    expect(content).toBe("Both. ");
    expect(calls.map((call) => JSON.parse(call.function.arguments) as object)).toEqual([
      PARIS,
      ROME,
    ]);
  });

  test("goes on for long, and is cut where it is told to", async () => {
    expect((await ask("long")).content).toBe(numberedPieces(1000).join(""));
    expect((await ask("long", { max_tokens: 3 })).content).toBe("w1 w2 w3 ");
    expect((await ask("long", { stop: ["w5"] })).content).toBe("w1 w2 w3 w4 ");
  });

  test("says no piece twice, and none that is empty", async () => {
    expect(await failureOf(["a", "b", "a"])).toContain("comes twice");
    expect(await failureOf(["a", ""])).toContain("is empty");
  });
});

async function failureOf(pieces: readonly string[]): Promise<string> {
  const written = writeScriptedModel(join(home.path, "never.gguf"), { pieces });
  return String(await written.catch((error: unknown) => error));
}

function post(path: string, body: object): Promise<Response> {
  // A proxy of the environment has no way to this loopback.
  return fetch(`${home.url}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    proxy: false,
  });
}

function chat(model: string, more: object): Promise<Response> {
  const messages = [{ role: "user", content: "Weather?" }];
  return post("/v1/chat/completions", { model: `me/${model}`, messages, ...more });
}

async function ask(model: keyof typeof SCRIPTS, more: object = {}): Promise<Message> {
  const response = await chat(model, more);
  const body = (await response.json()) as { choices?: { message: Message }[] };
  const message = body.choices?.[0]?.message;
  if (message === undefined) throw new Error(JSON.stringify(body));
  return message;
}

async function streamed(model: keyof typeof SCRIPTS): Promise<string[]> {
  const text = await (await chat(model, { stream: true })).text();
  return text
    .split("\n")
    .filter((line) => line.startsWith("data: {"))
    .map((line) => JSON.parse(line.slice(6)) as { choices: { delta: { content?: string } }[] })
    .map(({ choices }) => choices[0]?.delta.content ?? "")
    .filter((piece) => piece !== "");
}
