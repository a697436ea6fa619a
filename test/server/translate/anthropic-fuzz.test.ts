import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import * as v from "valibot";
import { AppError } from "../../../src/errors.ts";
import { MessagesRequest } from "../../../src/server/translate/anthropic/request.ts";
import { translateMessages } from "../../../src/server/translate/anthropic/translation.ts";
import type { AnswerStream } from "../../../src/server/translate/translation.ts";
import { StreamTranslator } from "../../../src/server/translate/translation.ts";

/** Enough to meet each kind of block and turn; a second at most. */
const RUNS = { numRuns: 300 };

const text = fc.record({ type: fc.constant("text"), text: fc.string() });
const block = fc.oneof(
  text,
  fc.record({ type: fc.constant("thinking"), thinking: fc.string() }),
  fc.record({ type: fc.constant("redacted_thinking"), data: fc.string() }),
  fc.record({
    type: fc.constant("tool_use"),
    id: fc.constantFrom("a", "b"),
    name: fc.constantFrom("add", "now"),
    input: fc.dictionary(fc.string(), fc.jsonValue()),
  }),
  fc.record({
    type: fc.constant("tool_result"),
    tool_use_id: fc.constantFrom("a", "b"),
    content: fc.oneof(fc.string(), fc.array(text), fc.constant(null)),
    is_error: fc.boolean(),
  }),
  fc.record({
    type: fc.constant("document"),
    source: fc.record({ type: fc.constant("text"), data: fc.string() }),
  }),
  fc.jsonValue(),
);
const request = fc.record({
  model: fc.constant("m"),
  max_tokens: fc.nat(),
  messages: fc.array(
    fc.record({
      role: fc.constantFrom("user", "assistant", "system"),
      content: fc.oneof(fc.string(), fc.array(block, { maxLength: 4 })),
    }),
    { maxLength: 5 },
  ),
  system: fc.oneof(fc.string(), fc.array(text), fc.constant(undefined)),
});

const delta = fc.record(
  {
    content: fc.oneof(fc.string(), fc.constant(null)),
    reasoning_content: fc.string(),
    tool_calls: fc.array(
      fc.record(
        {
          index: fc.nat(3),
          id: fc.string(),
          function: fc.record({ name: fc.string(), arguments: fc.string() }, { requiredKeys: [] }),
        },
        { requiredKeys: [] },
      ),
      { maxLength: 2 },
    ),
  },
  { requiredKeys: [] },
);
const chunk = fc.oneof(
  fc.record(
    {
      choices: fc.array(
        fc.record(
          { delta, finish_reason: fc.constantFrom(null, "stop", "length", "tool_calls") },
          { requiredKeys: [] },
        ),
        { maxLength: 1 },
      ),
    },
    { requiredKeys: [] },
  ),
  fc.dictionary(fc.constantFrom("choices", "usage", "timings", "error"), fc.jsonValue()),
);

describe("whatever comes", () => {
  test("a request is translated or refused, and turns alternate", () => {
    let translated = 0;
    fc.assert(
      fc.property(request, (body) => {
        const parsed = v.safeParse(MessagesRequest, body);
        if (!parsed.success) return;
        try {
          const { messages } = translateMessages(parsed.output, {}).body;
          translated += 1;
          const roles = messages.map(({ role }) => role);
          expect(roles.some((role, at) => role === "assistant" && roles[at + 1] === role)).toBe(
            false,
          );
        } catch (error) {
          if (!(error instanceof AppError) || error.code !== "invalid_request") throw error;
        }
      }),
      RUNS,
    );

    expect(translated).toBeGreaterThan(20);
  });

  test("a stream begins once, ends once, and its blocks follow one another", () => {
    fc.assert(
      fc.property(fc.array(chunk, { maxLength: 12 }), (chunks) => {
        checkGrammar(eventsOf(chunks));
      }),
      RUNS,
    );
  });
});

interface Event {
  readonly type: string;
  readonly index?: number;
}

function eventsOf(chunks: readonly object[]): Event[] {
  const asked = { model: "m", max_tokens: 9, stream: true, messages: [] };
  const { stream } = translateMessages(asked, {}).translation;
  const translator = new StreamTranslator(stream as AnswerStream, (message) => ({
    type: "error",
    message,
  }));
  const sent = chunks.map((one) =>
    translator.push(Buffer.from(`data: ${JSON.stringify(one)}\n\n`)),
  );
  const written = Buffer.concat([...sent, translator.end()]).toString();
  return [...written.matchAll(/^data: (.*)$/gm)].map(([, data]) => JSON.parse(data ?? "") as Event);
}

function checkGrammar(events: readonly Event[]): void {
  const kinds = events.map(({ type }) => type).filter((type) => type !== "ping");
  const last = kinds.at(-1) ?? "";
  expect(["message_stop", "error"]).toContain(last);
  expect(kinds.indexOf(last)).toBe(kinds.length - 1);
  expect(kinds.lastIndexOf("message_start")).toBeLessThanOrEqual(0);
  let open: number | undefined;
  let next = 0;
  for (const { type, index } of events) {
    if (type === "content_block_start") {
      expect([open, index]).toEqual([undefined, next]);
      open = index;
      next += 1;
    } else if (type === "content_block_delta") expect(index).toBe(open as number);
    else if (type === "content_block_stop") {
      expect(index).toBe(open as number);
      open = undefined;
    } else if (type === "message_delta") expect(open).toBeUndefined();
  }
}
