/**
 * Settings of a model: which there are, what each may be, and which one holds where several say it. Pure.
 * Everything that is stored, configured or sent goes through `checkSettings`; everything that runs through `mergeLayers`.
 */
import type { ModelSettings, SettingName } from "../api/settings.ts";
import { parseDuration } from "../config.ts";
import { AppError } from "../errors.ts";
import { nearest } from "../nearest.ts";

/** What one place says. */
export interface Layer {
  /** As `explain` shows it. */
  readonly source: string;
  readonly settings: ModelSettings;
}

export interface Sourced<T> {
  readonly value: T;
  readonly source: string;
}

/** Absent members are said nowhere. */
export type EffectiveSettings = {
  readonly [K in SettingName]?: Sourced<NonNullable<ModelSettings[K]>>;
};

/** An int32 in engines. */
const MAX_TOKENS = 2 ** 31 - 1;
/** @see llama.cpp src/llama-cparams.h: LLAMA_MAX_SEQ */
const MAX_PARALLEL = 256;
const MAX_LAYERS = 100_000;
/** A system prompt that is longer than this is no prompt. Characters. */
const MAX_TEXT = 1024 * 1024;
const MAX_NAME = 4096;
const MAX_ADAPTERS = 32;
const MAX_FLAG_WORDS = 512;
const MAX_FLAG_LENGTH = 256 * 1024;
/** Characters of a wrong value that are shown. */
const MAX_SHOWN = 80;

/** Of requests, in OpenAI's and llama.cpp's words: they never shape a process. */
export const SAMPLING = [
  "temperature",
  "top_p",
  "top_k",
  "min_p",
  "seed",
  "max_tokens",
  "repeat_penalty",
  "presence_penalty",
  "frequency_penalty",
] as const satisfies readonly SettingName[];

/** They shape the process; requests carry the rest. */
export const PROCESS_SETTINGS = [
  "context_size",
  "parallel",
  "gpu_layers",
  "cache_type_k",
  "cache_type_v",
  "lora",
  "draft_model",
  "draft_max_tokens",
  "draft_min_probability",
  "reasoning_budget",
  "trust_remote_code",
  "allow_pickle",
  "runtime_flags",
] as const satisfies readonly SettingName[];

/** In the order in which they are shown. */
export const SETTING_NAMES = [
  ...PROCESS_SETTINGS,
  "keep_alive",
  "pinned",
  "think",
  "system",
  ...SAMPLING,
] as const satisfies readonly SettingName[];

/**
 * @param input what somebody wrote; members that are undefined or null count as not there
 * @param where how a message begins, such as `cannot configure \`m\``
 * @throws invalid_request naming the setting and what it takes
 */
export function checkSettings(
  input: Readonly<Record<string, unknown>>,
  where = "cannot use the settings",
): ModelSettings {
  const checked: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(input)) {
    const rule = requireRule(name, where);
    if (value === undefined || value === null) continue;
    if (!rule.accepts(value)) throw invalidValue(where, name, value);
    checked[name] = value;
  }
  return checked;
}

/** As `checkSettings`, but what is null stays null: it is to be unset. */
export function checkPatch(
  input: Readonly<Record<string, unknown>>,
  where: string,
): Readonly<Record<string, unknown>> {
  const unset = Object.entries(input).filter(([, value]) => value === null);
  return { ...checkSettings(input, where), ...Object.fromEntries(unset) };
}

/** @param layers the strongest first; each key is taken from the first that has it */
export function mergeLayers(layers: readonly Layer[]): EffectiveSettings {
  const merged: Record<string, Sourced<unknown>> = {};
  for (const { source, settings } of layers) {
    for (const [name, value] of Object.entries(settings)) {
      if (value !== undefined && !Object.hasOwn(merged, name)) merged[name] = { value, source };
    }
  }
  return merged;
}

/** `5m`, `1h30m`, `0`, `-1`: as `keep_alive` is written. */
export function formatKeepAlive(ms: number): string {
  if (ms < 0) return "-1";
  if (ms === 0) return "0";
  const parts: string[] = [];
  let left = Math.round(ms);
  for (const [unit, size] of DURATION_UNITS) {
    const count = Math.floor(left / size);
    left -= count * size;
    if (count > 0) parts.push(`${count}${unit}`);
  }
  return parts.join("");
}

// --- internal ---

const DURATION_UNITS = [
  ["h", 3_600_000],
  ["m", 60_000],
  ["s", 1000],
  ["ms", 1],
] as const;

interface Rule {
  /** What it takes, as the hint says it. */
  readonly takes: string;
  accepts(value: unknown): boolean;
}

const SHARE = number(0, 1);
const SWITCH: Rule = { takes: "true or false", accepts: (value) => typeof value === "boolean" };
/** Which types there are is the engine's to know. */
const CACHE_TYPE: Rule = {
  takes: "the name of a type, such as f16, q8_0 or q4_0",
  accepts: (value) => typeof value === "string" && /^[a-z0-9_]{1,32}$/.test(value),
};

const RULES: Readonly<Record<SettingName, Rule>> = {
  context_size: {
    takes: `a number of tokens from 1 to ${MAX_TOKENS}, or -1 for the model's own maximum`,
    accepts: (value) => value === -1 || isInteger(value, 1, MAX_TOKENS),
  },
  keep_alive: {
    takes: "a duration such as `5m`, `0`, or `-1` for ever",
    accepts: isDuration,
  },
  pinned: SWITCH,
  think: SWITCH,
  reasoning_budget: {
    takes: "a number of tokens, 0 for none, or -1 for no limit",
    accepts: (value) => isInteger(value, -1, MAX_TOKENS),
  },
  gpu_layers: {
    takes: "a number of layers, or -1 for all",
    accepts: (value) => isInteger(value, -1, MAX_LAYERS),
  },
  trust_remote_code: SWITCH,
  allow_pickle: SWITCH,
  parallel: integer(1, MAX_PARALLEL),
  cache_type_k: CACHE_TYPE,
  cache_type_v: CACHE_TYPE,
  lora: {
    takes: `absolute paths of at most ${MAX_ADAPTERS} files`,
    accepts: (value) => isTextList(value, MAX_ADAPTERS, MAX_NAME) && value.every(isAbsolutePath),
  },
  draft_model: words(MAX_NAME, "the name of a model"),
  draft_max_tokens: integer(1, 1024),
  draft_min_probability: SHARE,
  runtime_flags: {
    takes: "a list of words",
    accepts: (value) => isTextList(value, MAX_FLAG_WORDS, MAX_FLAG_LENGTH),
  },
  system: words(MAX_TEXT, "a text"),
  temperature: number(0, 100),
  top_p: SHARE,
  top_k: integer(0, 2 ** 24),
  min_p: SHARE,
  seed: integer(-1, 2 ** 32 - 1),
  max_tokens: integer(1, MAX_TOKENS),
  repeat_penalty: number(0, 100),
  presence_penalty: number(-100, 100),
  frequency_penalty: number(-100, 100),
};

function requireRule(name: string, where: string): Rule {
  if (Object.hasOwn(RULES, name)) return RULES[name as SettingName];
  const guess = name.length <= MAX_SHOWN ? nearest(name, SETTING_NAMES) : undefined;
  throw new AppError("invalid_request", `${where}: there is no setting \`${shown(name)}\``, {
    hint:
      guess === undefined
        ? `Settings are: ${SETTING_NAMES.join(", ")}.`
        : `Did you mean \`${guess}\`?`,
  });
}

function invalidValue(where: string, name: string, value: unknown): AppError {
  const said = typeof value === "string" ? value : (JSON.stringify(value) ?? String(value));
  const rule = RULES[name as SettingName];
  return new AppError(
    "invalid_request",
    `${where}: \`${shown(said)}\` is not a value of \`${name}\``,
    { hint: `Give it ${rule.takes}.`, details: { setting: name } },
  );
}

function shown(text: string): string {
  return text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN)}…` : text;
}

function integer(min: number, max: number): Rule {
  return {
    takes: `a whole number from ${min} to ${max}`,
    accepts: (value) => isInteger(value, min, max),
  };
}

function number(min: number, max: number): Rule {
  return {
    takes: `a number from ${min} to ${max}`,
    accepts: (value) => typeof value === "number" && value >= min && value <= max,
  };
}

function words(maxLength: number, takes: string): Rule {
  return {
    takes,
    accepts: (value) => typeof value === "string" && value !== "" && value.length <= maxLength,
  };
}

function isInteger(value: unknown, min: number, max: number): boolean {
  return Number.isSafeInteger(value) && (value as number) >= min && (value as number) <= max;
}

function isDuration(value: unknown): boolean {
  if (typeof value !== "string" || value.length > MAX_SHOWN) return false;
  try {
    return Number.isFinite(parseDuration(value));
  } catch {
    return false;
  }
}

function isTextList(value: unknown, maxCount: number, maxLength: number): value is string[] {
  return (
    Array.isArray(value) &&
    value.length <= maxCount &&
    value.every(
      (item) => typeof item === "string" && item.length <= maxLength && !item.includes("\0"),
    )
  );
}

/** Of this or another system: settings may have been copied. */
function isAbsolutePath(path: string): boolean {
  return /^(\/|[a-zA-Z]:[\\/]|\\\\)/.test(path);
}
