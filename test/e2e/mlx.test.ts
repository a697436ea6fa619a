/** MLX for real: installed from PyPI, running Pebble's safetensors out of an OCI artifact. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";
import { eventually } from "../helpers/eventually.ts";
import { expectedAnswers, LONG_REQUEST, QUESTION, SAFETENSORS } from "../helpers/pebble.ts";
import { killAll, processesNaming, type RunningProcess } from "../helpers/processes.ts";
import { PYTHON_PROBLEM } from "../helpers/pypi.ts";
import { describeIf } from "../helpers/test-if.ts";
import { type TugHome, tugHome } from "../helpers/tug-home.ts";

setDefaultTimeout(60_000);

const MODEL = "me/pebble-st";
const MESSAGES = [{ role: "user" as const, content: QUESTION }];
/** Of Pebble's answers; another runtime rounds otherwise. */
const EXPECTED_RATIO = 0.9;
/** A swap takes seconds: the interpreter starts. */
const ALTERNATIONS = 4;

describeIf(PYTHON_PROBLEM === undefined, PYTHON_PROBLEM ?? "")("mlx", () => {
  let home: TugHome;
  beforeAll(async () => {
    home = await tugHome({ engine: true });
    await ok(["package", "--safetensors-dir", SAFETENSORS, MODEL]);
  }, 240_000);
  afterAll(async () => {
    await home[Symbol.asyncDispose]();
  });

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
    return all.filter(({ argv }) => argv[1] === "-m" && argv[2] === "mlx_lm");
  }

  async function workers(): Promise<Record<string, unknown>[]> {
    return JSON.parse(await ok(["ps", "--json"])) as Record<string, unknown>[];
  }

  test("the first run installs it and answers", async () => {
    expect(await ok(["run", MODEL, QUESTION])).toContain("Paris");

    const status = JSON.parse(await ok(["status", "--json"])) as {
      engines: { backend: string; source: string; variant: string }[];
    };
    expect(status.engines).toContainEqual(
      expect.objectContaining({ backend: "mlx", source: "pypi", variant: "cpu" }),
    );
  }, 240_000);

  test("answers as with any other engine, under the client's name for the model", async () => {
    const chat = { model: MODEL, messages: MESSAGES, temperature: 0 };
    const whole = await openai().chat.completions.create(chat);
    const stream = await openai().chat.completions.create({
      ...chat,
      stream: true,
      stream_options: { include_usage: true },
    });
    const chunks = await Array.fromAsync(stream);
    const pieces = chunks.map(({ choices: [choice] }) => choice?.delta.content ?? "");

    expect(whole.choices[0]?.message.content).toContain("Paris");
    expect(pieces.join("")).toBe(whole.choices[0]?.message.content ?? "");
    expect(pieces.filter((piece) => piece !== "").length).toBeGreaterThan(3);
    expect(chunks.at(-1)?.usage?.completion_tokens).toBe(whole.usage?.completion_tokens ?? 0);
    expect(new Set([whole, ...chunks].map(({ model }) => model))).toEqual(new Set([MODEL]));
  });

  test("knows what Pebble knows", async () => {
    const asked = (await expectedAnswers()).filter(({ tools }) => tools === undefined).slice(0, 60);
    const answers = await Promise.all(
      asked.map(({ messages }) =>
        openai().chat.completions.create({
          model: MODEL,
          messages: messages as unknown as typeof MESSAGES,
          temperature: 0,
        }),
      ),
    );
    const right = asked.filter(({ expected }, index) =>
      answers[index]?.choices[0]?.message.content?.includes(expected),
    );

    expect(right.length / asked.length).toBeGreaterThanOrEqual(EXPECTED_RATIO);
  });

  test("speaks to Anthropic's and Ollama's clients", async () => {
    const anthropic = new Anthropic({ baseURL: home.url, apiKey: "any", maxRetries: 0 });
    const message = await anthropic.messages.create({
      model: MODEL,
      max_tokens: 32,
      messages: MESSAGES,
    });
    const ollama = await fetch(`${home.url}/api/chat`, {
      method: "POST",
      body: JSON.stringify({ model: MODEL, messages: MESSAGES, stream: false }),
    });

    expect(message).toMatchObject({ content: [{ type: "text" }], stop_reason: "end_turn" });
    expect(JSON.stringify(message.content)).toContain("Paris");
    expect(((await ollama.json()) as { message: { content: string } }).message.content).toContain(
      "Paris",
    );
  });

  test("what it has nothing for is refused by name", async () => {
    const count = await fetch(`${home.url}/v1/chat/completions/input_tokens`, {
      method: "POST",
      body: JSON.stringify({ model: MODEL, messages: MESSAGES }),
    });
    const embedding = await fetch(`${home.url}/v1/embeddings`, {
      method: "POST",
      body: JSON.stringify({ model: MODEL, input: "a" }),
    });

    expect(count.status).toBe(501);
    expect(await count.text()).toContain("mlx, has nothing for it");
    expect(embedding.status).toBe(422);
    expect(await embedding.text()).toContain("vllm is not installed");
  });

  test("an answer that nobody wants any more ends, and its place is free", async () => {
    const stream = await openai().chat.completions.create({
      model: MODEL,
      messages: [{ role: "user", content: LONG_REQUEST }],
      stream: true,
    });
    for await (const _ of stream) break;

    await eventually(async () => {
      const [worker] = await workers();
      return worker?.["requests"] === 0;
    });
    expect(await ok(["run", MODEL, QUESTION])).toContain("Paris");
  });

  test("ps and explain tell what runs", async () => {
    const [worker] = await workers();
    const explained = await ok(["explain", MODEL]);

    expect(worker).toMatchObject({ backend_name: "mlx", model_name: MODEL, state: "ready" });
    expect(Object.keys(worker?.["memory_actual"] ?? {})).toEqual(["ram"]);
    expect(explained).toContain("mlx_lm server --model");
  });

  test("one that was killed is there again with the next request", async () => {
    await killAll(await engines());

    expect(await ok(["run", MODEL, QUESTION])).toContain("Paris");
    expect(await engines()).toHaveLength(1);
  });

  test("leaves when it is idle", async () => {
    const body = { model: MODEL, messages: MESSAGES, keep_alive: "1s" };
    await openai().chat.completions.create(body);

    // The process is gone a moment before its worker is.
    await eventually(async () => (await workers()).length === 0, 20_000);
    expect(await engines()).toEqual([]);
  });

  test("takes turns with llama.cpp under one budget", async () => {
    await ok(["stop-runner"]);
    await using narrow = await withBudget(home, "ram=160MiB");
    const names: string[] = [];
    for (let round = 0; round < ALTERNATIONS; round += 1) {
      for (const model of ["pebble", MODEL]) {
        const { exitCode, stdout, stderr } = await narrow.tug(["run", model, QUESTION]);
        expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
        expect(stdout).toContain("Paris");
        const ps = JSON.parse((await narrow.tug(["ps", "--json"])).stdout) as {
          backend_name: string;
        }[];
        names.push(...ps.map((worker) => worker.backend_name));
      }
    }

    expect(new Set(names)).toEqual(new Set(["llama.cpp", "mlx"]));
    // Each had to go for the other.
    expect(names).toHaveLength(2 * ALTERNATIONS);
  });

  test("a GPU that has no packages is an error that names what there is", async () => {
    const { exitCode, stderr } = await home.tug([
      "install-runner",
      "--backend",
      "mlx",
      "--source",
      "apt",
    ]);

    expect(exitCode).toBe(2);
    expect(stderr).toContain("Choose one of: pypi.");
  });
});

/** The same home, whose runner has that budget. */
async function withBudget(
  home: TugHome,
  budget: string,
): Promise<AsyncDisposable & Pick<TugHome, "tug">> {
  const env = { TUG_MEMORY_BUDGET: budget };
  return {
    tug: (args, options = {}) => home.tug(args, { ...options, env }),
    async [Symbol.asyncDispose]() {
      await home.tug(["stop-runner"], { env });
    },
  };
}
