import { describe, expect, test } from "bun:test";

import { expand, findPlaceholders, valuesOf } from "../../src/runtime/custom-command.ts";

const INPUT = {
  bundle: { directory: "/b", format: "echo", model: "/b/x.bin", weightBytes: 1 },
  mode: "completion",
  settings: { contextTokens: 4096, runtimeFlags: [] },
  alias: "me/x",
  socket: "/run/e.sock",
  cores: 3,
  platform: "linux",
} as const;

describe("findPlaceholders", () => {
  test.each<[string, string[], string | undefined]>([
    ["${PORT} ${MODEL} ${PORT}", ["PORT", "MODEL"], undefined],
    ["--a=${SOCKET}x", ["SOCKET"], undefined],
    ["$PORT $ {PORT} {PORT}", [], undefined],
    ["$${PORT}", [], undefined],
    ["$$${PORT}", [], undefined],
    ["${port}", [], "${port}"],
    ["${}", [], "${}"],
    ["${PORT", ["PORT"], undefined],
    ["${NOPE} ${ALSO}", [], "${NOPE}"],
    ["${constructor}", [], "${constructor}"],
  ])("placeholders: %j", (word, known, unknown) => {
    const found = findPlaceholders([word]);

    expect([...found.known]).toEqual(known as never[]);
    expect(found.unknown).toBe(unknown);
  });
});

describe("expand", () => {
  test("placeholders: each is what it means, as often as it stands there", () => {
    const values = valuesOf({ ...INPUT, port: 4000 });
    const word =
      "${PORT}:${SOCKET}:${MODEL}:${MODEL_DIR}:${MODEL_NAME}:${CONTEXT}:${CORES}:${PORT}";

    expect(expand(word, values)).toBe("4000:/run/e.sock:/b/x.bin:/b:me/x:4096:3:4000");
  });

  test("placeholders: what they stand for is not expanded again", () => {
    const values = valuesOf({ ...INPUT, alias: "${PORT} $& $1", port: 4000 });

    expect(expand("${MODEL_NAME}", values)).toBe("${PORT} $& $1");
  });

  test("placeholders: an escaped one is plain text", () => {
    expect(expand("$${PORT} ${CORES}", valuesOf({ ...INPUT, port: 1 }))).toBe("${PORT} 3");
  });

  test("placeholders: a port that is not chosen yet stays as it is written", () => {
    expect(expand("${PORT}", valuesOf(INPUT))).toBe("${PORT}");
  });

  test("placeholders: of safetensors the model is the directory, and no context is -1", () => {
    const bundle = { ...INPUT.bundle, format: "safetensors" };
    const values = valuesOf({ ...INPUT, bundle, settings: { runtimeFlags: [] } });

    expect(expand("${MODEL} ${CONTEXT}", values)).toBe("/b -1");
  });
});
