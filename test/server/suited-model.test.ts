import { describe, expect, test } from "bun:test";
import type { ModelProfile } from "../../src/models/capabilities.ts";
import type { Mode } from "../../src/runtime/backend.ts";
import { modeOf, requireSuited } from "../../src/server/suited-model.ts";
import { fakePlan, runnable } from "./fake-deps.ts";

function profile(
  capabilities: ModelProfile["capabilities"],
  info: ModelProfile["info"] = {},
): ModelProfile {
  return { capabilities, info, template: null, projectorInfo: null };
}

const CHAT = profile(["completion", "tools"]);
const SEEING = profile(["completion", "vision"]);
const EMBEDDING = profile(["embedding"], {
  "general.architecture": "bert",
  "bert.pooling_type": 1,
});
const SILENT_ENCODER = profile(["embedding"], { "general.architecture": "bert" });
const RANKER = profile([], { "general.architecture": "bert", "bert.pooling_type": 4 });
const IMAGE = { messages: [{ role: "user", content: [{ type: "image_url" }] }] };
const SOUND = { messages: [{ role: "user", content: [{ type: "input_audio" }] }] };

interface Case {
  readonly mode?: Mode;
  readonly flags?: readonly string[];
  readonly body?: object;
}

function judge(model: ModelProfile | undefined, { mode, flags = [], body = {} }: Case): void {
  const plan = fakePlan({ model: runnable(), ...(mode === undefined ? {} : { mode }) });
  requireSuited({
    plan: { ...plan, settings: { runtimeFlags: flags } },
    profile: model,
    body: body as Record<string, unknown>,
  });
}

describe("requireSuited", () => {
  test.each<[string, ModelProfile | undefined, Case]>([
    ["a chat", CHAT, {}],
    ["embeddings of an embedding model", EMBEDDING, { mode: "embedding" }],
    ["a ranking of one that ranks", RANKER, { mode: "reranking" }],
    ["a ranking of an encoder that does not say", SILENT_ENCODER, { mode: "reranking" }],
    [
      "anything of a model of which nothing is known",
      undefined,
      { mode: "embedding", body: IMAGE },
    ],
    [
      "embeddings of a chat model that is told how to pool",
      CHAT,
      {
        mode: "embedding",
        flags: ["--pooling", "mean"],
      },
    ],
    ["an image to one that sees", SEEING, { body: IMAGE }],
    [
      "an image to one that is given a projector",
      CHAT,
      {
        flags: ["--mmproj=/x"],
        body: IMAGE,
      },
    ],
    ["messages of any make", CHAT, { body: { messages: [null, 5, { content: [null, "x"] }] } }],
  ])("suited: %s", (_, model, question) => {
    expect(() => judge(model, question)).not.toThrow();
  });

  test.each<[ModelProfile, Case, string]>([
    [EMBEDDING, {}, "it is for embeddings, not for chat"],
    [RANKER, {}, "it is for reranking, not for chat"],
    [CHAT, { mode: "embedding" }, "it is for chat, not for embeddings"],
    [EMBEDDING, { mode: "reranking" }, "it is for embeddings, not for reranking"],
    [CHAT, { mode: "reranking" }, "it is for chat, not for reranking"],
    [CHAT, { body: IMAGE }, "it takes no images"],
    [SEEING, { body: SOUND }, "it takes no audio"],
  ])("suited: %j asked for %j: %s", (model, question, reason) => {
    expect(() => judge(model, question)).toThrow(
      expect.objectContaining({
        code: "invalid_request",
        message: expect.stringContaining(reason),
      }),
    );
  });
});

test("suited: a model's purpose is a chat unless it is known to be another", () => {
  expect([undefined, CHAT, EMBEDDING, RANKER].map(modeOf)).toEqual([
    "completion",
    "completion",
    "embedding",
    "reranking",
  ]);
});
