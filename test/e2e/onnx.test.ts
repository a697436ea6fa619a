/** ONNX for real: onnxruntime installed from PyPI, models of a few kilobytes whose answers and vectors are known. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import OpenAI from "openai";
import { type Script, scriptedDecoder } from "../../backends/onnx/tiny-model.ts";
import { eventually } from "../helpers/eventually.ts";
import {
  ENCODER_CONTEXT,
  type EncoderOptions,
  normalised,
  tinyEncoder,
  tokenVectors,
  writeFiles,
} from "../helpers/onnx-models.ts";
import { killAll, processesNaming, type RunningProcess } from "../helpers/processes.ts";
import { PYTHON_PROBLEM } from "../helpers/pypi.ts";
import { describeIf, isLinux } from "../helpers/test-if.ts";
import { type TugHome, tugHome } from "../helpers/tug-home.ts";

setDefaultTimeout(60_000);

/** One letter has two bytes, which are two tokens. */
const PIECES = ["The", " capital", " is", " Pari", "s", ", d", "<0xC3>", "<0xA9>", "j", "à "];
const ANSWER = "The capital is Paris, déjà ";
const MESSAGES = [{ role: "user" as const, content: "What is the capital of France?" }];
const SCRIPTS: Readonly<Record<string, Script>> = {
  "me/genai": { pieces: PIECES },
  "me/split": { pieces: PIECES, isSplit: true },
  "me/optimum": { pieces: PIECES, isSplit: true, layout: "optimum" },
  "me/endless": { pieces: ["on ", "and "], isEndless: true, context: 1_000_000 },
  "me/strict": { pieces: ["x"], template: "{{ raise_exception('roles must take turns') }}" },
};
const ENCODERS: Readonly<Record<string, EncoderOptions>> = {
  "me/mean": { takesTypes: true },
  "me/cls": { pooling: "cls" },
  "me/last": { pooling: "lasttoken" },
  "me/max": { pooling: "max" },
  "me/itself": { poolsItself: true },
};

describeIf(PYTHON_PROBLEM === undefined, PYTHON_PROBLEM ?? "")("onnx", () => {
  let home: TugHome;
  beforeAll(async () => {
    home = await tugHome();
    for (const [name, script] of Object.entries(SCRIPTS)) await add(name, scriptedDecoder(script));
    for (const [name, options] of Object.entries(ENCODERS)) await add(name, tinyEncoder(options));
  }, 240_000);
  afterAll(async () => {
    await home[Symbol.asyncDispose]();
  });

  async function add(name: string, files: ReturnType<typeof scriptedDecoder>): Promise<void> {
    const directory = join(home.path, "made", name);
    await writeFiles(directory, files);
    await ok(["package", "--onnx-dir", directory, name]);
  }

  async function ok(args: readonly string[]): Promise<string> {
    const { exitCode, stdout, stderr } = await home.tug(args, { timeoutMs: 120_000 });
    if (exitCode !== 0) throw new Error(`\`tug ${args.join(" ")}\`:\n${stderr}`);
    return stdout;
  }

  function openai(): OpenAI {
    return new OpenAI({ baseURL: `${home.url}/v1`, apiKey: "any", maxRetries: 0 });
  }

  async function engines(): Promise<RunningProcess[]> {
    const all = await processesNaming(home.path);
    return all.filter(({ argv }) => argv[1]?.endsWith("launch.py"));
  }

  async function workers(): Promise<Record<string, unknown>[]> {
    return JSON.parse(await ok(["ps", "--json"])) as Record<string, unknown>[];
  }

  async function ask(model: string, more: object = {}) {
    const request = { model, messages: MESSAGES, ...more, stream: false } as const;
    return openai().chat.completions.create(request);
  }

  async function complete(more: object) {
    const request = { model: "me/genai", prompt: "a", ...more, stream: false } as const;
    return openai().completions.create(request);
  }

  async function complaint(model: string): Promise<string> {
    return (await home.tug(["run", model, "hi"])).stderr;
  }

  async function vectors(model: string, input: string | string[], more: object = {}) {
    const { data } = await openai().embeddings.create({ model, input, ...more });
    return data.map(({ embedding }) => embedding);
  }

  test("the first run installs it and answers", async () => {
    expect(await ok(["run", "me/genai", "hi"])).toBe(`${ANSWER}\n`);

    const status = JSON.parse(await ok(["status", "--json"])) as { engines: object[] };
    expect(status.engines).toContainEqual(
      expect.objectContaining({ backend: "onnx", source: "pypi", variant: "cpu" }),
    );
  }, 240_000);

  test.each(["me/genai", "me/split", "me/optimum"])(
    "%s answers, whole and in pieces, with what it took",
    async (model) => {
      const whole = await ask(model);
      const stream = await openai().chat.completions.create({
        model,
        messages: MESSAGES,
        stream: true,
        stream_options: { include_usage: true },
      });
      const chunks = await Array.fromAsync(stream);
      const pieces = chunks.map(({ choices: [choice] }) => choice?.delta.content ?? "");

      expect(whole.choices[0]).toMatchObject({
        message: { role: "assistant", content: ANSWER },
        finish_reason: "stop",
      });
      // Each token, and the end; the prompt is a token a letter, and `>`.
      expect(whole.usage).toMatchObject({ prompt_tokens: 31, completion_tokens: 11 });
      expect(pieces.filter((piece) => piece !== "")).toEqual([
        ...PIECES.slice(0, 6),
        "é",
        ...PIECES.slice(8),
      ]);
      expect(chunks.at(-1)?.usage).toMatchObject({ prompt_tokens: 31, completion_tokens: 11 });
      expect(new Set([whole, ...chunks].map((it) => it.model))).toEqual(new Set([model]));
    },
  );

  test("a text ends where it is told to", async () => {
    const stopped = await complete({ stop: ["Paris", "nothing"] });
    const short = await complete({ max_tokens: 2 });
    const none = await complete({ stop: "never", max_tokens: 0 });
    const almost = await complete({ stop: "Paris,x" });

    expect(stopped.choices[0]).toMatchObject({ text: "The capital is ", finish_reason: "stop" });
    expect(short.choices[0]).toMatchObject({ text: "The capital", finish_reason: "length" });
    expect(short.usage).toMatchObject({ prompt_tokens: 1, completion_tokens: 2, total_tokens: 3 });
    expect(none.choices[0]).toMatchObject({ text: "", finish_reason: "length" });
    // What may be the beginning of a stop is held back, and said after all.
    expect(almost.choices[0]).toMatchObject({ text: ANSWER, finish_reason: "stop" });
  });

  test("any sampling that makes sense is taken", async () => {
    const odd = { temperature: 0, top_p: 0, top_k: 0, seed: -5, max_tokens: null };
    const hot = { temperature: 2, top_p: 1, top_k: 1_000_000, seed: 2 ** 53 - 1 };

    for (const more of [odd, hot, { top_k: 1 }, { max_completion_tokens: 1_000_000_000 }])
      expect((await ask("me/genai", more)).choices[0]?.message.content).toBe(ANSWER);
  });

  test("embeds, by the mean unless the model says otherwise", async () => {
    const text = "hello";
    const columns = [0, 1, 2, 3].map((at) => tokenVectors(text).map((vector) => vector[at] ?? 0));
    const sum = columns.map((column) => column.reduce((total, value) => total + value, 0));
    const most = columns.map((column) => Math.max(...column));
    const expected: Readonly<Record<string, readonly number[]>> = {
      "me/mean": sum,
      "me/cls": tokenVectors("h")[0] ?? [],
      "me/last": tokenVectors("o")[0] ?? [],
      "me/max": most,
      "me/itself": most,
    };
    for (const [model, vector] of Object.entries(expected)) {
      const [whole] = await vectors(model, text);
      expect(whole?.map((value) => value.toFixed(4))).toEqual(
        normalised(vector).map((value) => value.toFixed(4)),
      );
    }
  });

  test("what is embedded together is what it is alone, in order", async () => {
    const texts = Array.from({ length: 40 }, (_, index) => "a long text".slice(0, 1 + (index % 9)));

    for (const model of ["me/mean", "me/last", "me/max"]) {
      const together = await vectors(model, texts);
      const alone = await vectors(model, texts[7] ?? "");
      expect(together).toHaveLength(texts.length);
      expect(together[7]?.map((it) => it.toFixed(5))).toEqual(alone[0]?.map((it) => it.toFixed(5)));
      expect(together[7]).not.toEqual(together[0] ?? []);
    }
  });

  test("embeds as floats, in fewer dimensions, and tokens", async () => {
    const [floats] = await vectors("me/mean", "ab", { encoding_format: "float" });
    const [base64] = await vectors("me/mean", "ab", { encoding_format: "base64" });
    const [two] = await vectors("me/mean", "ab", { dimensions: 2 });
    const empty = await openai().embeddings.create({ model: "me/mean", input: ["", "b"] });

    expect(floats).toHaveLength(4);
    expect(base64 as unknown).toBeString();
    expect(two?.map((it) => it.toFixed(4))).toEqual(
      normalised(floats?.slice(0, 2) ?? []).map((it) => it.toFixed(4)),
    );
    expect(empty.data).toHaveLength(2);
    expect(empty.usage.prompt_tokens).toBe(1);
  });

  test("what does not fit is refused with both numbers", async () => {
    const long = "a".repeat(600);
    const chat = () => ask("me/genai", { messages: [{ role: "user", content: long }] });

    expect(await refusal(() => vectors("me/mean", ["a", long]))).toMatch(/^400 .*600 tokens.*128/);
    expect(await refusal(chat)).toMatch(/^400 .*601 tokens.*512/);
    expect(ENCODER_CONTEXT).toBe(128);
  });

  test("what the model or the engine cannot do is a sentence", async () => {
    const tools = [{ type: "function", function: { name: "f", parameters: {} } }];
    const image = { type: "image_url", image_url: { url: "data:image/png;base64,AAAA" } };

    const messages = [{ role: "user", content: [image] }];

    expect(await refusal(() => ask("me/genai", { tools }))).toMatch(/^400 .*calls no tools/);
    expect(await refusal(() => ask("me/genai", { n: 2 }))).toMatch(/^400 .*nothing for `n`/);
    expect(await refusal(() => ask("me/genai", { messages }))).toMatch(/^400 .*no text/);
    expect(await refusal(() => ask("me/strict"))).toMatch(/^400 .*roles must take turns/);
  });

  test("a long answer leaves room for others, and ends with its reader", async () => {
    const stop = new AbortController();
    const long = await openai().chat.completions.create(
      { model: "me/endless", messages: MESSAGES, stream: true },
      { signal: stop.signal },
    );
    const reader = long[Symbol.asyncIterator]();
    await reader.next();
    const short = await ask("me/endless", { max_tokens: 4 });
    const next = await reader.next();
    stop.abort();

    expect(short.choices[0]?.message.content).toBe("on and on and ");
    expect(next.done).toBe(false);
    await eventually(async () => (await workers()).every(({ requests }) => requests === 0));
  });

  test("as many as leave, their places are free", async () => {
    for (let left = 0; left < 9; left += 1) {
      const stream = await openai().chat.completions.create({
        model: "me/endless",
        messages: MESSAGES,
        stream: true,
      });
      for await (const _ of stream) break;
    }

    const { choices } = await ask("me/endless", { max_tokens: 2 });
    expect(choices[0]?.message.content).toBe("on and ");
  });

  test("ps and explain tell what runs", async () => {
    await ask("me/genai");
    const worker = (await workers()).find((it) => it["model_name"] === "me/genai");
    const explained = await ok(["explain", "me/genai"]);

    expect(worker).toMatchObject({ backend_name: "onnx", mode: "completion", state: "ready" });
    expect(explained).toContain("--mode completion --name=me/genai");
    expect(explained).toContain("That is what it was told.");
    expect(explained).toMatch(/context_size +512 /);
  });

  test("one that was killed is there again with the next request", async () => {
    await killAll(await engines());

    expect(await ok(["run", "me/genai", "hi"])).toContain("Paris");
  });

  test("leaves when it is idle", async () => {
    await ask("me/genai", { keep_alive: "1s" });

    await eventually(async () => {
      const names = (await workers()).map((it) => it["model_name"]);
      return !names.includes("me/genai");
    }, 20_000);
  });

  test("a model that is none says what it lacks", async () => {
    const { "tokenizer.json": _, ...untold } = scriptedDecoder({ pieces: ["x"] });
    const files = scriptedDecoder({ pieces: ["x"] });
    await add("me/untold", untold);
    await add("me/broken", { ...files, "model.onnx": "no graph" });
    await add("me/elsewhere", { ...files, "genai_config.json": "{}" });

    expect(await complaint("me/untold")).toContain(
      "cannot load `me/untold`: the model has no `tokenizer.json`",
    );
    expect(await complaint("me/broken")).toContain("cannot load `me/broken`");
    expect(await complaint("me/elsewhere")).toContain("describes no language model");
  });

  test("libraries that a model names are not loaded", async () => {
    const files = scriptedDecoder({ pieces: ["safe"] });
    const config = JSON.parse(String(files["genai_config.json"])) as {
      model: { decoder: { session_options: object } };
    };
    const library = { custom_ops_library: "/no/such/library.so" };
    Object.assign(config.model, library);
    Object.assign(config.model.decoder, library);
    Object.assign(config.model.decoder.session_options, library);
    await add("me/custom", { ...files, "genai_config.json": JSON.stringify(config) });

    expect(await ok(["run", "me/custom", "hi"])).toContain("safe");
  });

  test("nothing is written for its maker to be told", async () => {
    const [worker] = await workers();
    expect(worker).toBeDefined();
    const { stdout } = Bun.spawnSync(["find", home.path, "-iname", "*onnxruntime*.db"]);
    expect(stdout.toString()).toBe("");

    if (!isLinux) return;
    const [{ pid } = { pid: 0 }] = await engines();
    const maps = await readdir(`/proc/${pid}/fd`);
    expect(maps.length).toBeGreaterThan(0);
    const environment = await readFile(`/proc/${pid}/environ`, "utf8");
    expect(environment).toContain("ORT_DISABLE_TELEMETRY=1");
  });
});

/** What it was refused with. */
async function refusal(act: () => Promise<unknown>): Promise<string> {
  try {
    await act();
    return "it was not refused";
  } catch (error) {
    return error instanceof Error ? error.message : "it was no error";
  }
}
