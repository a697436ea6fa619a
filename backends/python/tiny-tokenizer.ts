/** Tokenizers of models of a few kilobytes, in Hugging Face's format: a token a character. Pure. */

export interface TinyTokenizer {
  /** By their numbers; those at the beginning are the special ones. */
  readonly tokens: readonly string[];
  readonly specialCount: number;
  /** What stands for characters that are no token. */
  readonly unknown: string;
  /** How tokens become a text; they are put together unless given. */
  readonly decoder?: unknown;
}

/** @see https://huggingface.co/docs/tokenizers/api/tokenizer */
export function tinyTokenizer(options: TinyTokenizer): Readonly<Record<string, unknown>> {
  const { tokens, specialCount, unknown, decoder = { type: "Fuse" } } = options;
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: tokens.slice(0, specialCount).map((content, id) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: {
      type: "Split",
      pattern: { Regex: String.raw`[\s\S]` },
      behavior: "Isolated",
      invert: false,
    },
    post_processor: null,
    decoder,
    model: {
      type: "WordLevel",
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      unk_token: unknown,
    },
  };
}
