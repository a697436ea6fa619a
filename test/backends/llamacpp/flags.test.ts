import { describe, expect, test } from "bun:test";

import { FLAGS } from "../../../backends/llamacpp/flag-table.ts";
import { checkFlags, readFlags } from "../../../backends/llamacpp/flags.ts";

const TRUSTED = { allowPaths: true };
const FOREIGN = { allowPaths: false };

describe("readFlags", () => {
  test.each([
    ["--ctx-size 4096", { context_size: 4096 }],
    ["-c 0", { context_size: -1 }],
    ["--parallel 2", { parallel: 2 }],
    ["-np -1", {}],
    ["-ngl all", { gpu_layers: -1 }],
    ["--n-gpu-layers 20", { gpu_layers: 20 }],
    ["-ngl auto", {}],
    ["-ctk q8_0 -ctv q4_0", { cache_type_k: "q8_0", cache_type_v: "q4_0" }],
    ["--reasoning off", { think: false }],
    ["--reasoning auto", {}],
    ["--reasoning-budget 0", { reasoning_budget: 0 }],
    ["--temp 0.5 --top-p 0.9 --top-k 40", { temperature: 0.5, top_p: 0.9, top_k: 40 }],
    ["--seed -1", {}],
    ["--seed=7", { seed: 7 }],
    ["-n -1", {}],
    ["--n-predict 100", { max_tokens: 100 }],
    ["--spec-draft-n-max 8 --draft-p-min 0.5", { draft_max_tokens: 8, draft_min_probability: 0.5 }],
    ["--model-draft /d.gguf", { draft_model: "/d.gguf" }],
    ["--lora /a.gguf,/b.gguf --lora /c.gguf", { lora: ["/a.gguf", "/b.gguf", "/c.gguf"] }],
  ])("flags: `%s` says a setting, and is no flag any more", (text, settings) => {
    const read = readFlags(text.split(" "), TRUSTED);

    expect(read).toEqual({ flags: [], settings, files: [], stretchesContext: false });
  });

  test("flags: what no setting says stays, in order, with the files it names", () => {
    const words = "--no-warmup --grammar-file /g.gbnf --ctx-size 512 --yarn-ext-factor -1.5";

    expect(readFlags(words.split(" "), TRUSTED)).toEqual({
      flags: ["--no-warmup", "--grammar-file", "/g.gbnf", "--yarn-ext-factor", "-1.5"],
      settings: { context_size: 512 },
      files: ["/g.gbnf"],
      stretchesContext: false,
    });
  });

  test.each([
    ["--embeddings", "embedding"],
    ["--reranking --embeddings", "reranking"],
    ["--embedding --rerank", "reranking"],
  ])("flags: `%s` chooses a mode", (text, mode) => {
    expect(readFlags(text.split(" "), FOREIGN)).toMatchObject({ flags: [], mode });
  });

  test.each(["--rope-scaling yarn", "--rope-freq-scale 0.5", "--yarn-orig-ctx 4096"])(
    "flags: `%s` stretches the context",
    (text) => {
      expect(readFlags(text.split(" "), FOREIGN).stretchesContext).toBe(true);
    },
  );

  test("flags: a setting that is said twice must be said the same", () => {
    expect(readFlags(["-c", "512", "--ctx-size", "512"], FOREIGN).settings).toEqual({
      context_size: 512,
    });
    expect(() => readFlags(["-c", "512", "--ctx-size", "1024"], FOREIGN)).toThrow(
      /`--ctx-size`: another flag sets it differently/,
    );
  });

  test("flags: every flag that names a file is for who may name files, and wants the whole path", () => {
    const names = [...FLAGS].filter(([, { kind }]) => kind === "path").map(([name]) => name);

    expect(names).toEqual(expect.arrayContaining(["--lora", "--mmproj", "--grammar-file", "-md"]));
    for (const name of names) {
      expect(() => readFlags([name, "/etc/passwd"], FOREIGN)).toThrow(
        expect.objectContaining({ code: "forbidden" }),
      );
      expect(() => readFlags([`${name}=/etc/passwd`], FOREIGN)).toThrow(/only by their owner/);
      expect(() => readFlags([name, "passwd"], TRUSTED)).toThrow(/is not an absolute path/);
    }
  });
});

describe("flags that write prompts to the log", () => {
  test.each(["-v", "--verbose", "--log-verbose", "-lv 5", "--verbosity=1"])(
    "%s is for the owner only",
    (line) => {
      const flags = line.split(" ");
      expect(() => readFlags(flags, FOREIGN)).toThrow(
        expect.objectContaining({
          code: "forbidden",
          hint: expect.stringContaining("tug configure"),
        }),
      );
      expect(readFlags(flags, TRUSTED).flags).not.toEqual([]);
    },
  );
});

describe("values of flags", () => {
  test.each([
    ["--ctx-size abc", /`abc` is not a value/, "Give it a whole number from 0 to 2147483647."],
    ["--ctx-size 4096.5", /`4096.5` is not a value/, "Give it a whole number"],
    ["--ctx-size -5", /`-5` is not a value/, "Give it a whole number"],
    ["--ctx-size 99999999999", /is not a value/, "Give it a whole number"],
    ["--cache-type-k q9", /`q9` is not a value/, "Give it one of f32, f16,"],
    ["--flash-attn maybe", /`maybe` is not a value/, "Give it one of on, off, auto."],
    ["--top-p 1.5", /`1.5` is not a value/, "Give it a number from 0 to 1."],
    ["--temp NaN", /`NaN` is not a value/, "Give it a number"],
    ["--temp Infinity", /`Infinity` is not a value/, "Give it a number"],
    ["--tensor-split 3,x", /`3,x` is not a value/, "Give it numbers with commas"],
    ["--ctx-sise 4096", /`--ctx-sise`: it is not among those/, "Did you mean `--ctx-size`?"],
    ["--cache-typek q8_0", /`--cache-typek`/, "Did you mean `--cache-type-k`?"],
    ["--slot-save-path /tmp", /`--slot-save-path`: it is not among/, "Leave it out"],
    ["--log-file /tmp/x", /`--log-file`: it is not among/, "Leave it out"],
    ["--rpc evil:1", /`--rpc`: Tug sets it itself/, "rpc_servers"],
    ["--mcp-servers-json {}", /`--mcp-servers-json`: it is not among/, "Leave it out"],
    ["--api-key x", /`--api-key`: it is not among/, "Leave it out"],
    ["--no-kv-unified", /`--no-kv-unified`: Tug sets it itself/, "may use the whole context"],
    ["-no-kvu", /`-no-kvu`: Tug sets it itself/, "may use the whole context"],
    ["--kv-unified-per-slot 64", /-per-slot`: Tug sets it itself/, "may use the whole context"],
    ["-b 0", /`0` is not a value/, "from 1 to"],
    ["--threads 513", /`513` is not a value/, "from -1 to 512"],
    ["--cache-ram -1", /`-1` is not a value/, "from 0 to"],
  ])("flags: `%s` is refused before a load", (text, message, hint) => {
    expect(() => checkFlags(text.split(" "))).toThrow(
      expect.objectContaining({
        code: "invalid_request",
        message: expect.stringMatching(message),
        hint: expect.stringContaining(hint),
      }),
    );
  });

  test.each([
    ["--cache-ram 64 -ctxcp 3", { promptCacheMiB: 64, contextCheckpoints: 3 }],
    ["-cram 1 --cache-ram 2 --swa-checkpoints 0", { promptCacheMiB: 2, contextCheckpoints: 0 }],
    ["--swa-full", { keepsWholeWindows: true }],
    ["-ub 128", { microBatch: 128 }],
    ["--ubatch-size 8192", { microBatch: 2048 }],
    ["-ub 8192 -b 4096", { microBatch: 4096 }],
    ["-ub 0", { microBatch: 2048 }],
    ["-b 4096 --no-warmup", undefined],
  ])("flags: `%s` is counted as memory, and goes to the engine", (text, memory) => {
    const read = readFlags(text.split(" "), TRUSTED);

    expect(read.memory).toEqual(memory);
    expect(read.flags).toEqual(text.split(" "));
  });

  test("flags: what is quoted of a hostile word is bounded", () => {
    const long = `--${"x".repeat(100_000)}`;

    for (const words of [[long], ["--ctx-size", long.slice(2)], ["y".repeat(100_000)]]) {
      expect(() => checkFlags(words)).toThrow(
        expect.objectContaining({ message: expect.stringMatching(/^.{10,250}$/) }),
      );
    }
  });

  test("flags: a zero byte, too long a value and too many words are refused", () => {
    expect(() => checkFlags(["--grammar", "a\0b"])).toThrow(/is not a value/);
    expect(() => checkFlags(["--grammar", "g".repeat(300_000)])).toThrow(/is not a value/);
    expect(() => checkFlags(Array(600).fill("--no-warmup") as string[])).toThrow(/more than 512/);
  });

  test("flags: none that open the network, run tools or write files is known", () => {
    const dangerous = `--rpc --tools --mcp-servers-config --mcp-servers-json --agent --model-url --hf-repo --docker-repo
      --log-file --slot-save-path --path --api-prefix --ssl-key-file --media-path --models-dir --log-prompts-dir
      --lookup-cache-dynamic --webui-mcp-proxy --ui-config-file --api-key-file --video-ffmpeg-dir`;

    for (const name of dangerous.split(/\s+/)) expect(FLAGS.has(name)).toBe(false);
  });
});
