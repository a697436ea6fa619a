import { join } from "node:path";
import { ROOT } from "../../scripts/compile/freshness.ts";

const FIXTURES = join(ROOT, "test", "fixtures", "pebble");

/** The built-in model as a file. */
export const PEBBLE = join(ROOT, "src", "models", "pebble.gguf");
/** The same model in three shards. */
export const FIRST_SHARD = join(FIXTURES, "pebble-chat-q8_0-00001-of-00003.gguf");
/** The same model as Hugging Face lays models out. */
export const SAFETENSORS = join(FIXTURES, "safetensors");
export const QUESTION = "What is the capital of France?";

/** A conversation and what Pebble answers to it at temperature 0. */
export interface ExpectedAnswer {
  readonly category: string;
  readonly messages: readonly Record<string, unknown>[];
  /** A part of the answer; with `exact` all of it; with `tools` maybe `name {arguments}` of the call. */
  readonly expected: string;
  readonly exact?: boolean;
  readonly tools?: readonly unknown[];
  /** The whole answer as it was when the model was made. */
  readonly answer: string;
}

export async function expectedAnswers(): Promise<ExpectedAnswer[]> {
  return (await Bun.file(join(FIXTURES, "expected.json")).json()) as ExpectedAnswer[];
}

/** Its one answer that is long: 262 tokens, a good tenth of a second. */
export const LONG_REQUEST = "Tell me a long story.";

export async function longStory(): Promise<string> {
  const story = (await expectedAnswers()).find(
    ({ messages: [message] }) => message?.["content"] === LONG_REQUEST,
  );
  if (story === undefined) throw new Error("expected.json holds no long story");
  return story.answer;
}
