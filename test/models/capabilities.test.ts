import { describe, expect, test } from "bun:test";
import { writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { judge, ModelProfiles, type ProfileParts } from "../../src/models/capabilities.ts";
import { packageModel } from "../../src/models/package.ts";
import type { HeaderValue } from "../../src/store/gguf-parse.ts";
import { Store } from "../../src/store/store.ts";
import { FIRST_SHARD, PEBBLE } from "../helpers/pebble.ts";
import { tempDir } from "../helpers/temp-dir.ts";

const signal = new AbortController().signal;

function parts(
  keys: Readonly<Record<string, HeaderValue>>,
  rest: Partial<ProfileParts> = {},
): ProfileParts {
  const header = new Map<string, HeaderValue>(
    Object.entries({ "general.architecture": "llama", ...keys }),
  );
  return { header, template: null, projector: undefined, ...rest };
}

describe("judge", () => {
  test.each<[string, ProfileParts, string[]]>([
    ["a bare model", parts({}), ["completion"]],
    [
      "tools in the code",
      parts({}, { template: "{% if tools %}x{% endif %}" }),
      ["completion", "tools"],
    ],
    [
      "tools in the text only",
      parts({}, { template: "You have no tools. {{ x }}" }),
      ["completion"],
    ],
    [
      "a switch for thinking",
      parts({}, { template: "{% if enable_thinking is false %}x{% endif %}" }),
      ["completion", "thinking"],
    ],
    ["thoughts in tags", parts({}, { template: "<think>\n{{ x }}" }), ["completion", "thinking"]],
    [
      "thinking as a word of the text",
      parts({}, { template: "Keep thinking. {{ x }}" }),
      ["completion"],
    ],
    ["a projector", parts({}, { projector: new Map() }), ["completion", "vision"]],
    [
      "a projector for sound",
      parts(
        {},
        {
          projector: new Map<string, HeaderValue>([
            ["clip.has_audio_encoder", true],
            ["clip.has_vision_encoder", false],
          ]),
        },
      ),
      ["completion", "audio"],
    ],
    ["pooling", parts({ "llama.pooling_type": 1 }), ["embedding"]],
    ["no pooling", parts({ "llama.pooling_type": 0 }), ["completion"]],
    ["ranking", parts({ "llama.pooling_type": 4 }), []],
    ["an encoder", parts({ "general.architecture": "bert" }), ["embedding"]],
    [
      "keys for filling in",
      parts({ "tokenizer.ggml.fim_pre_token_id": 1, "tokenizer.ggml.fim_suf_token_id": 2 }),
      ["completion", "insert"],
    ],
    [
      "tokens for filling in",
      parts({ "tokenizer.ggml.tokens": ["a", "<|fim_prefix|>", "<|fim_suffix|>"] }),
      ["completion", "insert"],
    ],
    ["half of them", parts({ "tokenizer.ggml.tokens": ["<|fim_prefix|>"] }), ["completion"]],
    [
      "no header at all",
      { header: new Map(), template: null, projector: undefined },
      ["completion"],
    ],
  ])("%s", (_, given, expected) => {
    expect(judge(given) as readonly string[]).toEqual(expected);
  });

  test("a template full of braces costs nothing", () => {
    const template = "{%".repeat(200_000);

    const start = performance.now();
    judge(parts({}, { template }));

    // Quadratic, it takes half a minute.
    expect(performance.now() - start).toBeLessThan(2000);
  });
});

describe("ModelProfiles", () => {
  test("a model is read once, also for two who ask at once", async () => {
    await using directory = await tempDir();
    const store = Store.open(join(directory.path, "store"));
    const { id } = await packageModel(store, { model: "m", gguf: PEBBLE }, { signal });
    const profiles = new ModelProfiles(store);

    const [first, second] = await Promise.all([profiles.of(id), profiles.of(id)]);
    const third = await profiles.of(id);

    expect(first?.capabilities).toEqual(["completion", "tools"]);
    expect(first?.info["general.architecture"]).toBe("llama");
    expect(first?.projectorInfo).toBeNull();
    expect(third).toBe(first);
    expect(second).toBe(first);
  });

  test("shards count as one model", async () => {
    await using directory = await tempDir();
    const store = Store.open(join(directory.path, "store"));
    const whole = await packageModel(store, { model: "whole", gguf: PEBBLE }, { signal });
    const cut = await packageModel(store, { model: "cut", gguf: FIRST_SHARD }, { signal });
    const profiles = new ModelProfiles(store);

    const [one, other] = await Promise.all([profiles.of(whole.id), profiles.of(cut.id)]);

    const key = "general.parameter_count";
    expect(other?.info[key]).toEqual(one?.info[key] ?? 0);
    expect(other?.capabilities).toEqual(one?.capabilities ?? []);
  });

  test("a model that embeds does nothing else", async () => {
    await using directory = await tempDir();
    const store = Store.open(join(directory.path, "store"));
    const gguf = join(dirname(FIRST_SHARD), "pebble-embed-f16.gguf");
    const { id } = await packageModel(store, { model: "m", gguf }, { signal });

    expect((await new ModelProfiles(store).of(id))?.capabilities).toEqual(["embedding"]);
  });

  test("a template of its own is judged instead of the header's", async () => {
    await using directory = await tempDir();
    const store = Store.open(join(directory.path, "store"));
    const template = join(directory.path, "t.jinja");
    await writeFile(template, "{% if enable_thinking %}x{% endif %}");
    const request = { model: "m", gguf: PEBBLE, chat_template: template };
    const { id } = await packageModel(store, request, { signal });

    const profile = await new ModelProfiles(store).of(id);

    expect(profile?.capabilities).toEqual(["completion", "thinking"]);
    expect(profile?.template).toContain("enable_thinking");
  });

  test("what is not in the store has none, and may come later", async () => {
    await using directory = await tempDir();
    const store = Store.open(join(directory.path, "store"));
    const profiles = new ModelProfiles(store);

    expect(await profiles.of(`sha256:${"0".repeat(64)}`)).toBeUndefined();
  });
});
