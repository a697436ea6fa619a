/** Which context a model gets where nobody says one, and how much memory that takes. Pure. */
import { AppError } from "../errors.ts";
import type { ModelShape } from "../store/model-shape.ts";
import type { RunnableModel } from "./backend.ts";
import { type Demand, isNothing, shortage } from "./demand.ts";
import {
  estimateBytes,
  estimateMemory,
  largestContext,
  type MemoryEstimate,
  type RunShape,
} from "./memory.ts";
import { type ResolvedSettings, sourceOf } from "./plan-settings.ts";
import { unknownShape } from "./reserved-memory.ts";
import type { Sourced } from "./settings.ts";

/** Enough for a short conversation. Tokens. */
const SMALL_CONTEXT = 4096;

/** Of the budget, for one model for which nobody says a context: so that a second one can stay beside it. */
const DEFAULT_SHARE = 0.5;

export interface MemoryFacts {
  readonly model: Pick<RunnableModel, "name" | "weightBytes">;
  /** Undefined: nobody can read it, and a rule of thumb has to do. */
  readonly shape: ModelShape | undefined;
  /** With a context that is surely wanted: layers lie where they would lie with that one. */
  readonly run: RunShape;
  /** Depends on the machine and the settings only. */
  readonly wholeBudget: Demand;
  /** What other programs leave of it; undefined counts as all. */
  readonly budget: Demand | undefined;
}

/**
 * The context a worker gets: what was said, or else the largest that fits half of the budget, so that a second model
 * fits beside it; less where other programs hold that memory, but 4096 tokens, or what it was trained for, in any case.
 *
 * @returns -1 where the model's own maximum was asked for and is not known
 * @throws invalid_request (larger than the model's own)
 */
export function chooseContext(
  { effective, stretchesContext, usualContext }: ResolvedSettings,
  facts: MemoryFacts,
): Sourced<number> {
  const trained = facts.shape?.contextTokens ?? undefined;
  const said = effective.context_size;
  if (said !== undefined) {
    if (said.value === -1) return { value: trained ?? -1, source: said.source };
    if (trained === undefined || said.value <= trained || stretchesContext) return said;
    throw tooLarge(facts.model.name, said, trained);
  }
  if (usualContext !== undefined) {
    const { tokens, source } = usualContext;
    return { value: Math.min(tokens, trained ?? tokens), source };
  }
  return { value: defaultContext(facts), source: "default" };
}

/** What a model gets in any case, even where that takes more than its half. Tokens. */
export function leastContext(shape: ModelShape | undefined): number {
  return Math.min(SMALL_CONTEXT, shape?.contextTokens ?? SMALL_CONTEXT);
}

/** By part and by device, with the context of `run`. */
export function estimateRun({ model, shape, run }: MemoryFacts): MemoryEstimate {
  if (shape !== undefined) return estimateMemory(shape, run);
  if (run.reservation !== undefined) return estimateMemory(unknownShape(model), run);
  const bytes = estimateBytes(model) + (run.engineBytes ?? 0);
  const engine = bytes - model.weightBytes;
  const parts = { weights: model.weightBytes, engine };
  return { parts, demand: { ram: bytes }, growing: { ram: engine } };
}

/**
 * What a worker is counted for: the peak that was measured, and what may come to it, for it may have been measured after
 * short prompts only; but no more than was estimated, unless it was more.
 */
export function expectedDemand(
  { demand, growing }: Pick<MemoryEstimate, "demand" | "growing">,
  measured: Demand | undefined,
): Demand {
  if (measured === undefined) return demand;
  const expected = Object.entries(measured).map(([device, peak]) => {
    const most = Math.min(demand[device] ?? 0, peak + (growing[device] ?? 0));
    return [device, Math.max(peak, most)];
  });
  return Object.fromEntries(expected) as Demand;
}

/** The largest context that fits; null if none does or nobody can tell. */
export function largestThatFits({ shape, run }: MemoryFacts, room: Demand): number | null {
  // Without its layers nobody knows what a token takes.
  if (shape === undefined || shape.layers.length === 0) return null;
  return largestContext(shape, run, room) ?? null;
}

export function fits(demand: Demand, room: Demand): boolean {
  return isNothing(shortage(demand, room));
}

// --- internal ---

function defaultContext(facts: MemoryFacts): number {
  const { shape, wholeBudget, budget } = facts;
  const least = leastContext(shape);
  const half = Object.fromEntries(
    Object.entries(wholeBudget).map(([device, bytes]) => [device, bytes * DEFAULT_SHARE]),
  );
  const wanted = Math.max(least, largestThatFits(facts, half) ?? 0);
  if (budget === undefined) return wanted;
  const now = Math.max(least, largestThatFits(facts, budget) ?? 0);
  return Math.min(wanted, now);
}

function tooLarge(name: string, said: Sourced<number>, trained: number): AppError {
  return new AppError(
    "invalid_request",
    `cannot give \`${name}\` a context of ${said.value} tokens${sourceOf(said)}: it was trained for ${trained}`,
    {
      hint: `Give at most ${trained} tokens, or -1 for just that; a model can be stretched with \`--rope-scaling\` among its runtime flags.`,
      details: { context_size: said.value, trained_context: trained, source: said.source },
    },
  );
}
