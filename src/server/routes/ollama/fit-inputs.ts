/**
 * Texts that are longer than an engine embeds, cut to what it does: llama-server refuses them, Ollama's clients expect
 * the beginning to be embedded. The engine cuts: it alone knows its tokens.
 */
import * as v from "valibot";
import { AppError } from "../../../errors.ts";
import { log } from "../../../log.ts";
import { engineTarget } from "../../../runtime/engine-address.ts";
import type { Lease } from "../../../runtime/lease.ts";
import { systemClock } from "../../../runtime/clock.ts";
import type { EngineInput } from "../../translate/ollama/embeddings.ts";
import { acquireWorker, type LoadContext, type LoadRequest } from "./load.ts";

/** As `backends/llamacpp/args.ts` sets the batch, into which the whole of an input must fit. Tokens. */
const MAX_INPUT_TOKENS = 2048;
/** No context is smaller: who is shorter needs no look at the worker. Bytes; a token has one at least. */
const SURELY_SHORT = 64;
/** What a tokenizer adds at both ends, at most. */
const SPECIAL_TOKENS = 8;
/** A longer text is not even tokenized to its end. No vocabulary has longer tokens in any number. */
const MAX_CHARACTERS = MAX_INPUT_TOKENS * 256;
/** A tokenizer reads megabytes in a second. */
const TOKENIZE_TIMEOUT_MS = 30_000;

const Tokens = v.object({ tokens: v.array(v.number()) });

export interface FittedInputs {
  readonly inputs: readonly EngineInput[];
  /** For the worker that was asked; loading included. */
  readonly waitedMs: number;
}

/**
 * An engine that cannot be asked for tokens gets the texts as they are.
 *
 * @throws what planning and loading throw; cancelled
 */
export async function fitInputs(
  context: LoadContext,
  target: LoadRequest,
  texts: readonly string[],
): Promise<FittedInputs> {
  if (texts.every((text) => mayHave(text) <= SURELY_SHORT)) return { inputs: texts, waitedMs: 0 };
  const { clock = systemClock } = context.deps;
  const startedMs = clock.now();
  using lease = await acquireWorker(context, target);
  const waitedMs = clock.now() - startedMs;
  const limit = limitOf(lease);
  const { signal } = context.c.req.raw;
  const inputs: EngineInput[] = [];
  for (const text of texts) {
    if (signal.aborted) throw gone();
    inputs.push(mayHave(text) <= limit ? text : await fit(text, { lease, limit, signal }));
  }
  return { inputs, waitedMs };
}

// --- internal ---

function gone(): AppError {
  return new AppError("cancelled", "cannot measure the inputs: the client has gone");
}

interface FitOptions {
  readonly lease: Lease;
  readonly limit: number;
  readonly signal: AbortSignal;
}

function limitOf({ report }: Lease): number {
  const context = report?.["context_size"];
  return Math.min(typeof context === "number" ? context : MAX_INPUT_TOKENS, MAX_INPUT_TOKENS);
}

/** An upper bound of its tokens. */
function mayHave(text: string): number {
  return Buffer.byteLength(text) + SPECIAL_TOKENS;
}

async function fit(text: string, options: FitOptions): Promise<EngineInput> {
  const start = text.slice(0, MAX_CHARACTERS).toWellFormed();
  const tokens = await tokenize(start, true, options);
  if (tokens === undefined || tokens.length <= options.limit) return text;
  const bare = await tokenize(start, false, options);
  const last = tokens.at(-1);
  // Some models need the token that ends every text.
  const end = last === undefined || last === bare?.at(-1) ? [] : [last];
  return [...tokens.slice(0, options.limit - end.length), ...end];
}

/** @returns undefined if the engine does not tell, for whatever reason: the request itself will meet it */
async function tokenize(
  content: string,
  withSpecial: boolean,
  { lease, signal }: FitOptions,
): Promise<number[] | undefined> {
  try {
    const { url, init } = engineTarget(lease.address, "/tokenize");
    const response = await fetch(url, {
      ...init,
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ content, add_special: withSpecial }),
      signal: AbortSignal.any([signal, AbortSignal.timeout(TOKENIZE_TIMEOUT_MS)]),
      keepalive: false,
    });
    const parsed = v.safeParse(Tokens, await response.json());
    return parsed.success ? parsed.output.tokens : undefined;
  } catch (error) {
    log.debug(`server: input not measured reason=${(error as Error).message}`);
    return undefined;
  }
}
