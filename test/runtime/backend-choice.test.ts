import { describe, expect, test } from "bun:test";

import { type ChoiceRequest, chooseBackend } from "../../src/runtime/backend-choice.ts";
import { fakeBackend } from "../fakes/backend.ts";

const gguf: ChoiceRequest = { model: { name: "m", format: "gguf" }, mode: "completion" };
const one = fakeBackend({ name: "one" });
const two = fakeBackend({ name: "two" });
const tensors = fakeBackend({ name: "tensors", formats: ["safetensors"] });
const all = [tensors, one, two];
const every = (): Promise<boolean> => Promise.resolve(true);
const onlyTwo = (name: string): Promise<boolean> => Promise.resolve(name === "two");
const refuse = (): Promise<boolean> => Promise.reject(new Error("asked"));
const none = (): Promise<boolean> => Promise.resolve(false);

describe("chooseBackend", () => {
  test("backend choice: the format decides", async () => {
    const safetensors = { ...gguf, model: { name: "m", format: "safetensors" } } as const;

    expect(await chooseBackend(safetensors, all, none)).toBe(tensors);
    expect(await chooseBackend(gguf, all, none)).toBe(one);
  });

  test("backend choice: among several the installed one wins", async () => {
    expect(await chooseBackend(gguf, all, onlyTwo)).toBe(two);
  });

  test("backend choice: with one candidate nobody is asked what is installed", async () => {
    expect(await chooseBackend(gguf, [tensors, one], refuse)).toBe(one);
  });

  test("backend choice: an explicit engine wins over an installed one", async () => {
    expect(await chooseBackend({ ...gguf, backend: "two" }, all, every)).toBe(two);
  });

  test.each([
    ["an unknown engine", { ...gguf, backend: "nope" }, "backend_not_found", "nope"],
    [
      "an engine that does not read the format",
      { ...gguf, backend: "tensors" },
      "unsupported_model",
      "tensors does not read gguf models",
    ],
    [
      "an engine without the mode",
      { ...gguf, mode: "reranking", backend: "one" },
      "unsupported_model",
      "one does not offer reranking",
    ],
    [
      "a format that no engine reads",
      { ...gguf, model: { name: "m", format: "dduf" } },
      "unsupported_model",
      "no engine offers completion for dduf models",
    ],
    [
      "a mode that no engine offers",
      { ...gguf, mode: "reranking" },
      "unsupported_model",
      "no engine offers reranking for gguf models",
    ],
  ] as const)("backend choice: %s is refused", async (...[, request, code, reason]) => {
    const failure = await chooseBackend(request, all, none).catch((thrown: unknown) => thrown);

    expect(failure).toMatchObject({ code });
    expect((failure as Error).message).toContain(reason);
  });
});
