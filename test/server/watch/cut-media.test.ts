import { describe, expect, test } from "bun:test";
import { boundText, cutMedia } from "../../../src/server/watch/cut-media.ts";
import { bytes } from "./facts.ts";

const MAX = 10_000;
const PICTURE = `data:image/png;base64,${"iVBORw0KGgo".repeat(500)}`;

const cut = (value: unknown, max = MAX) => cutMedia(bytes(JSON.stringify(value)), max);

describe("cutMedia", () => {
  test.each([
    ["a picture of OpenAI's", { messages: [{ content: [{ image_url: { url: PICTURE } }] }] }],
    ["a sound", { messages: [{ content: [{ input_audio: { data: "QUJD".repeat(500) } }] }] }],
    ["a file", { content: [{ file: { file_data: PICTURE } }] }],
    ["a picture of Ollama's", { images: ["QUJD".repeat(500)] }],
    ["a picture of Anthropic's", { source: { type: "base64", data: "QUJD".repeat(500) } }],
    ["the other alphabet", { data: "_-Q1".repeat(500) }],
  ])("cuts %s to 100 characters and says so", (_, value) => {
    const { text, mediaCut, isCut } = cut(value);

    expect([mediaCut, isCut]).toEqual([1, false]);
    expect(text.length).toBeLessThan(300);
    expect(text).toMatch(/[\w/:;,+=-]{100}\.\.\.\[truncated \d+ chars\]/);
    expect(() => JSON.parse(text)).not.toThrow();
  });

  test("counts what it cuts", () => {
    const { text } = cut({ image: PICTURE });

    const { image } = JSON.parse(text) as { image: string };
    expect(image.slice(0, 100)).toBe(PICTURE.slice(0, 100));
    expect(image.slice(100)).toBe(`...[truncated ${PICTURE.length - 100} chars]`);
  });

  test.each([
    ["a long prompt", { content: "Tell me of the sea. ".repeat(100) }],
    ["text without spaces in other letters", { content: "海".repeat(600) }],
    ["quotes and backslashes", { content: `${String.raw`a\"b\\`.repeat(200)} ` }],
    ["a short key", { key: "QUJD".repeat(20) }],
  ])("leaves %s as it is", (_, value) => {
    expect(cut(value)).toEqual({ text: JSON.stringify(value), mediaCut: 0, isCut: false });
  });

  test("finds what is behind text that ends in a backslash", () => {
    expect(cut({ content: "\\", image: PICTURE }).mediaCut).toBe(1);
  });

  test("bounds the rest, and says how much is missing", () => {
    const value = { content: "word ".repeat(10_000) };

    const { text, isCut } = cut(value);

    expect(isCut).toBe(true);
    expect(Buffer.byteLength(text)).toBeLessThan(MAX + 50);
    expect(text).toEndWith(`...[truncated ${JSON.stringify(value).length - MAX} bytes]`);
  });

  test("keeps all of a body in which only the pictures were long", () => {
    const { isCut, mediaCut, text } = cut({ images: Array(50).fill(PICTURE), prompt: "What?" });

    expect([isCut, mediaCut]).toEqual([false, 50]);
    expect(text).toEndWith('"prompt":"What?"}');
  });

  test.each(["", "{", '"', '{"a":"', "nonsense", '{"a":"\\'])("is not upset by %j", (text) => {
    expect(cutMedia(bytes(text), MAX)).toEqual({ text, mediaCut: 0, isCut: false });
  });
});

describe("boundText", () => {
  test("never cuts a character in two", () => {
    const text = "aé海🦆".repeat(3);
    const cuts = Array.from({ length: 30 }, (_, max) => boundText(bytes(text), max).text);

    expect(cuts.filter((one) => one.includes("\uFFFD"))).toEqual([]);
  });
});
