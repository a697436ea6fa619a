import { afterEach, beforeEach, describe, expect, spyOn, test } from "bun:test";

import type {
  ConfigureResult,
  EstimateResult,
  ExplainResult,
  StoredSettingsRow,
} from "../../src/api/settings.ts";
import { parseArguments } from "../../src/commands/arguments.ts";
import type { ArgumentDefinitions, Command } from "../../src/commands/command.ts";
import { command as configure } from "../../src/commands/configure.ts";
import { command as estimate } from "../../src/commands/estimate.ts";
import { command as explain } from "../../src/commands/explain.ts";
import { loadConfig } from "../../src/config.ts";
import { resolvePaths } from "../../src/paths.ts";

interface Asked {
  readonly method: string;
  readonly path: string;
  readonly body: unknown;
}

let answer: unknown;
let asked: Asked[];
let server: ReturnType<typeof Bun.serve>;

beforeEach(() => {
  asked = [];
  server = Bun.serve({
    port: 0,
    async fetch(request) {
      const { pathname, search } = new URL(request.url);
      const text = await request.text();
      const body: unknown = text === "" ? undefined : JSON.parse(text);
      asked.push({ method: request.method, path: pathname + search, body });
      return Response.json(answer);
    },
  });
});

afterEach(() => server.stop(true));

/** What a command prints and returns, against a server that says `answer`. */
async function run<T extends ArgumentDefinitions>(command: Command<T>, ...words: string[]) {
  let out = "";
  const write = spyOn(process.stdout, "write").mockImplementation(
    (chunk: string | Uint8Array, ...rest: unknown[]) => {
      out += String(chunk);
      const done = rest.at(-1);
      if (typeof done === "function") done();
      return true;
    },
  );
  try {
    const config = loadConfig("/nowhere/config.toml", {});
    const code = await command.run({
      args: parseArguments(command.args, words),
      config: { ...config, host: { value: server.url.href.replace(/\/$/, ""), source: "test" } },
      paths: resolvePaths(),
      signal: new AbortController().signal,
    });
    return { out, code: code ?? 0 };
  } finally {
    write.mockRestore();
  }
}

const ID = `sha256:${"a".repeat(64)}`;

describe("tug configure", () => {
  const result: ConfigureResult = {
    model_id: ID,
    mode: null,
    settings: { context_size: 2048, runtime_flags: ["--no-warmup"] },
    applies: "next load",
  };

  test("configure: sets, and says what is set then and when it applies", async () => {
    answer = result;

    const { out } = await run(
      configure,
      "ai/pebble",
      "--context-size",
      "2048",
      "--",
      "--no-warmup",
    );

    expect(asked).toEqual([
      {
        method: "POST",
        path: "/engines/_configure",
        body: {
          model: "ai/pebble",
          set: { context_size: 2048, runtime_flags: ["--no-warmup"] },
        },
      },
    ]);
    expect(out).toBe(
      "Set for pebble:\n  context_size = 2048\n  runtime_flags = --no-warmup\n" +
        "It is loaded with other values: the next request loads it anew.\n",
    );
  });

  test("configure: for a mode, and when nothing is left", async () => {
    answer = { ...result, mode: "embedding", settings: {}, applies: "now" };

    const { out } = await run(configure, "pebble", "--mode", "embedding", "--unset", "parallel");

    expect(asked[0]?.body).toEqual({ model: "pebble", mode: "embedding", set: { parallel: null } });
    expect(out).toBe("Nothing is set for pebble when used for embedding any more.\n");
  });

  test("configure show: a line a setting", async () => {
    const row: StoredSettingsRow = {
      model_id: ID,
      tags: ["docker.io/ai/pebble:latest"],
      mode: null,
      settings: { context_size: 2048, system: "two\nlines" },
      updated_at: "2026-01-01T00:00:00Z",
    };
    answer = [row, { ...row, tags: [], mode: "embedding", settings: { parallel: 1 } }];

    const { out } = await run(configure, "show", "me/a b");

    expect(asked[0]?.path).toBe("/engines/_configure?model=me%2Fa+b");
    expect(out.split("\n").map((line) => line.replaceAll(/\s{2,}/g, "|"))).toEqual([
      "MODEL|MODE|SETTING|VALUE",
      "pebble|all|context_size|2048",
      "pebble|all|system|two lines",
      `${ID.slice(0, 19)}|embedding|parallel|1`,
      "",
    ]);
  });

  test("configure show and reset: nothing is nothing", async () => {
    answer = [];
    expect((await run(configure, "show")).out).toBe("No model has settings.\n");
    expect((await run(configure, "show", "x")).out).toBe("Nothing is set for x.\n");
    expect((await run(configure, "show", "--json")).out).toBe("[]\n");
    answer = { reset: 0 };
    expect((await run(configure, "reset", "x")).out).toBe("Nothing was set for x.\n");
    answer = { reset: 2 };
    expect((await run(configure, "reset", "--all")).out).toBe(
      "Reset the settings of all models.\n",
    );
    expect(asked.map(({ method, path }) => `${method} ${path}`).slice(3)).toEqual([
      "DELETE /engines/_configure?model=x",
      "DELETE /engines/_configure?all=true",
    ]);
  });

  test("configure: a model may be called show", async () => {
    answer = result;

    await run(configure, "show:latest", "--parallel", "1");

    expect(asked[0]?.body).toMatchObject({ model: "show:latest" });
  });

  test.each([
    [["pebble"], /nothing to set/],
    [["pebble", "--all", "--think"], /`--all` goes with `reset` only/],
    [["show", "a", "b"], /unexpected argument `b`/],
    [["show", "a", "--think"], /`configure show` sets nothing/],
    [["reset", "a", "--top-k", "1"], /`configure reset` sets nothing/],
    [["reset"], /which model's settings/],
    [["reset", "a", "--all"], /which model's settings/],
  ])("configure: %j is refused, and nobody is asked", async (words, message) => {
    const failed = await run(configure, ...words).catch((error: unknown) => error);

    expect(failed).toMatchObject({ code: "usage", message: expect.stringMatching(message) });
    expect(asked).toEqual([]);
  });
});

describe("tug explain", () => {
  const result: ExplainResult = {
    model_id: ID,
    model_name: "docker.io/ai/pebble:latest",
    backend: "llama.cpp",
    mode: "completion",
    settings: [{ name: "context_size", value: 2048, source: "stored" }],
    command: ["/e/llama-server", "--alias", "a b"],
    sandbox: "bubblewrap",
    is_loaded: true,
    reported: { context_size: 2048 },
    mismatches: [],
  };

  test("explain: value, source, command line and what the engine says", async () => {
    answer = result;

    const { out, code } = await run(explain, "pebble", "--ctx-size", "2048");

    expect(asked[0]?.body).toEqual({ model: "pebble", context_size: 2048 });
    expect(code).toBe(0);
    expect(out).toMatch(/context_size +2048 +stored/);
    expect(out).toContain("COMMAND\n/e/llama-server --alias 'a b'\n");
    expect(out).toContain("  context_size = 2048\nThat is what it was told.\n");
  });

  test("explain: a difference is said, and is an exit code", async () => {
    answer = { ...result, mismatches: [{ name: "context_size", wanted: 2048, actual: 512 }] };

    const { out, code } = await run(explain, "pebble", "--mode", "completion", "--backend", "x");

    expect(code).toBe(1);
    expect(out).toContain("  context_size: should be 2048, is 512\n");
    expect((await run(explain, "pebble", "--json")).code).toBe(1);
  });

  test("explain: no engine, not loaded", async () => {
    answer = { ...result, command: null, is_loaded: false, reported: null };

    const { out } = await run(explain, "pebble");

    expect(out).toContain("No engine is installed yet");
    expect(out).toContain("It is not loaded");
  });
});

describe("tug explain, of engines that tell little", () => {
  const base: ExplainResult = {
    model_id: ID,
    model_name: "docker.io/me/m:latest",
    backend: "mlx",
    mode: "completion",
    settings: [
      {
        name: "context_size",
        value: 2048,
        source: "stored",
        ignored: "its server reads any length",
      },
      { name: "keep_alive", value: "5m", source: "default" },
    ],
    command: ["/e/python"],
    sandbox: "none",
    is_loaded: true,
    reported: null,
    mismatches: [],
  };

  test("explain: what the engine has nothing for is said beside it", async () => {
    answer = base;

    const { out } = await run(explain, "m");

    expect(out).toMatch(/context_size +2048 +stored; not for mlx: its server reads any length/);
    expect(out).toMatch(/keep_alive +5m +default *\n/);
  });

  test.each([[null], [{}]])(
    "explain: an engine that says %j is loaded all the same",
    async (reported) => {
      answer = { ...base, reported };

      const { out } = await run(explain, "m");

      expect(out).toContain("It is loaded. mlx does not tell its settings");
      expect(out).not.toContain("not loaded");
    },
  );
});

describe("tug estimate", () => {
  const result: EstimateResult = {
    model_id: ID,
    model_name: "docker.io/ai/pebble:latest",
    is_local: false,
    context_size: 2048,
    parallel: 4,
    cache_type_k: "q8_0",
    cache_type_v: "f16",
    parts: { weights: 1_000_000, cache: 2_000_000 },
    estimate: { ram: 3_000_000 },
    measured: null,
    devices: [
      {
        id: "ram",
        name: null,
        total_bytes: 8e9,
        free_bytes: null,
        budget_bytes: 4e9,
        held_bytes: 1e9,
      },
    ],
    fits: true,
    advice: null,
    largest_context: 2048,
    trained_context: 2048,
  };

  test("estimate: parts, devices and the verdict", async () => {
    answer = result;

    const { out, code } = await run(
      estimate,
      "pebble",
      "--ctx-size=-1",
      "--parallel",
      "4",
      "--cache-type-k",
      "q8_0",
    );

    expect(asked[0]?.body).toEqual({
      model: "pebble",
      context_size: -1,
      parallel: 4,
      cache_type_k: "q8_0",
    });
    expect(code).toBe(0);
    expect(out).toContain("pebble (not pulled): context 2048, 4 at once, cache q8_0/f16\n");
    expect(out).toMatch(/all +3\.00MB/);
    expect(out).toMatch(/ram +3\.00MB +- +4\.00GB +1\.00GB +- +8\.00GB/);
    expect(out).toContain(
      "It fits. The largest context that fits is 2048 tokens, all it was trained for.",
    );
  });

  test("estimate: what does not fit is an exit code", async () => {
    answer = { ...result, fits: false, largest_context: 512, measured: { ram: 5_000_000 } };
    const { out, code } = await run(estimate, "pebble");
    expect(code).toBe(1);
    expect(out).toContain("It does not fit. The largest context that fits is 512 tokens.");
    expect(out).toContain("5.00MB");
    answer = { ...result, fits: false, largest_context: null, advice: "`small` would fit" };
    expect((await run(estimate, "pebble")).out).toContain(
      "It does not fit. Instead: `small` would fit.\n",
    );

    answer = { ...result, fits: false, largest_context: null, context_size: -1 };
    expect((await run(estimate, "pebble")).out).toContain("It does not fit.\n");
    expect((await run(estimate, "pebble", "--json")).code).toBe(1);
  });

  test.each([
    [["--parallel", "0"], /not a value of `--parallel`/],
    [["--parallel", "many"], /not a value of `--parallel`/],
    [["--ctx-size", "0"], /not a context size/],
  ])("estimate: %j is refused", async (words, message) => {
    const failed = await run(estimate, "pebble", ...words).catch((error: unknown) => error);

    expect(failed).toMatchObject({ code: "usage", message: expect.stringMatching(message) });
  });
});
