import { expect, test } from "bun:test";
import { applyDefaults } from "../../src/server/packaged-defaults.ts";

const DEFAULTS = { system: "Be brief.", parameters: { temperature: 0.2, stop: ["<end>"] } };
const QUESTION = { role: "user", content: "Why?" };

test("a request that says nothing gets the packaged parameters and the system prompt", () => {
  expect(applyDefaults({ model: "m", messages: [QUESTION] }, DEFAULTS)).toEqual({
    model: "m",
    temperature: 0.2,
    stop: ["<end>"],
    messages: [{ role: "system", content: "Be brief." }, QUESTION],
  });
});

test("what the request says wins, also where it says null", () => {
  const own = { role: "system", content: "Be verbose." };
  const body = { temperature: 1, stop: null, messages: [own, QUESTION] };
  expect(applyDefaults(body, DEFAULTS)).toBe(body);
});

test("packaged turns come between the system prompt and the first turn", () => {
  const turn = { role: "assistant", content: "Hello." };
  const { messages } = applyDefaults({ messages: [QUESTION] }, { ...DEFAULTS, messages: [turn] });
  expect(messages).toEqual([{ role: "system", content: "Be brief." }, turn, QUESTION]);
});

test("without messages there is no system prompt to add", () => {
  expect(applyDefaults({ prompt: "Why?" }, { system: "Be brief." })).toEqual({ prompt: "Why?" });
});

test("a model without defaults leaves the very same body", () => {
  const body = { messages: [QUESTION] };
  expect(applyDefaults(body, undefined)).toBe(body);
});

test.each(["max_tokens", "max_completion_tokens", "n_predict"])(
  "a limit that the request calls `%s` wins over the packaged one",
  (word) => {
    const body = { prompt: "Why?", [word]: 8 };
    expect(applyDefaults(body, { parameters: { max_tokens: 99 } })).toBe(body);
  },
);

test.each<[string, object, object | undefined]>([
  ["a request that says nothing is told", {}, { enable_thinking: false }],
  [
    "other words for the template stay",
    { chat_template_kwargs: { a: 1 } },
    { a: 1, enable_thinking: false },
  ],
  ["null says nothing", { chat_template_kwargs: null }, { enable_thinking: false }],
  [
    "the request's own word wins",
    { chat_template_kwargs: { enable_thinking: true } },
    { enable_thinking: true },
  ],
  ["so does one about the effort", { reasoning_effort: "high" }, undefined],
  ["what is no object stays for the engine to judge", { chat_template_kwargs: 5 }, 5 as never],
])("thinking: %s", (_name, more, expected) => {
  const body = applyDefaults({ messages: [QUESTION], ...more }, { think: false, parameters: {} });

  expect(body["chat_template_kwargs"]).toEqual(expected);
});

test("thinking: what is off leaves no tokens for templates that ignore it", () => {
  const body = applyDefaults({ messages: [QUESTION] }, { think: false, parameters: {} });

  expect(body["reasoning_budget_tokens"]).toBe(0);
});

test("thinking: a prompt without messages has no template", () => {
  const body = { prompt: "Why?" };

  expect(applyDefaults(body, { think: true, parameters: {} })).toBe(body);
});
