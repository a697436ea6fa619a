/** The flags of `tug configure`, and what they set. Pure. */
import { resolve } from "node:path";
import type { ModelSettings, SettingName } from "../api/settings.ts";
import { parseDuration } from "../config.ts";
import { AppError } from "../errors.ts";
import { nearest } from "../nearest.ts";
import type { ArgumentDefinition, ArgumentDefinitions } from "./command.ts";
import { parseContext } from "./package.ts";

/** What a flag's text becomes; throws `usage`. */
type Parse = (text: string, flag: string) => unknown;

interface SettingFlag {
  readonly setting: SettingName;
  readonly hint: string;
  readonly description: string;
  readonly parse: Parse;
}

const text: Parse = (value) => value;
const whole: Parse = (value, flag) => toNumber(value, flag, /^-?\d{1,12}$/);
const number: Parse = (value, flag) => toNumber(value, flag, /^-?(\d+\.?\d*|\.\d+)(e-?\d+)?$/i);
const context: Parse = (value) => parseContext(value);
const duration: Parse = (value) => {
  parseDuration(value);
  return value.trim();
};

/** Flags with one value, each for a setting. Ranges are the server's to check: it knows what they are. */
const VALUED: Readonly<Record<string, SettingFlag>> = {
  "context-size": {
    setting: "context_size",
    hint: "N",
    description: "Context in tokens; -1 for the model's own maximum",
    parse: context,
  },
  "keep-alive": {
    setting: "keep_alive",
    hint: "TIME",
    description: "How long it stays loaded after a request: `5m`, 0, or -1 for ever",
    parse: duration,
  },
  parallel: {
    setting: "parallel",
    hint: "N",
    description: "Requests served at once; they share the context",
    parse: whole,
  },
  "gpu-layers": {
    setting: "gpu_layers",
    hint: "N",
    description: "Layers on the GPU; -1 for all",
    parse: whole,
  },
  "cache-type-k": {
    setting: "cache_type_k",
    hint: "TYPE",
    description: "Type of the keys in the cache: f16, q8_0, q4_0, …",
    parse: text,
  },
  "cache-type-v": {
    setting: "cache_type_v",
    hint: "TYPE",
    description: "Type of the values in the cache",
    parse: text,
  },
  "reasoning-budget": {
    setting: "reasoning_budget",
    hint: "N",
    description: "Tokens it may think; 0 for none, -1 for no limit",
    parse: whole,
  },
  "draft-model": {
    setting: "draft_model",
    hint: "MODEL",
    description: "A small model that drafts for it (speculative decoding)",
    parse: text,
  },
  "draft-max-tokens": {
    setting: "draft_max_tokens",
    hint: "N",
    description: "Tokens drafted at once",
    parse: whole,
  },
  "draft-min-probability": {
    setting: "draft_min_probability",
    hint: "P",
    description: "Draft only what is at least as likely, 0 to 1",
    parse: number,
  },
  system: {
    setting: "system",
    hint: "TEXT",
    description: "System message of requests that have none",
    parse: text,
  },
  temperature: sampling(["temperature", "T"], "0 always takes the likeliest token"),
  "top-p": sampling(["top_p", "P"], "Sample from the likeliest tokens of this total probability"),
  "top-k": sampling(["top_k", "N"], "Sample from this many of the likeliest tokens", whole),
  "min-p": sampling(
    ["min_p", "P"],
    "Leave out tokens less likely than this share of the likeliest",
  ),
  seed: sampling(["seed", "N"], "Makes sampling repeatable", whole),
  "max-tokens": sampling(["max_tokens", "N"], "Longest answer, in tokens", whole),
  "repeat-penalty": sampling(["repeat_penalty", "X"], "Above 1 makes repetition less likely"),
  "presence-penalty": sampling(["presence_penalty", "X"], "Against tokens that were there before"),
  "frequency-penalty": sampling(["frequency_penalty", "X"], "Against tokens that were there often"),
};

/** Docker Model Runner's spellings. */
const SYNONYMS: Readonly<Record<string, string>> = {
  "ctx-size": "context-size",
  "speculative-draft-model": "draft-model",
  "speculative-num-tokens": "draft-max-tokens",
  "speculative-min-acceptance-rate": "draft-min-probability",
};

const OTHERS = {
  lora: {
    type: "string",
    multiple: true,
    valueHint: "FILE",
    description: "A LoRA adapter to load with it",
  },
  think: {
    type: "boolean",
    negatable: true,
    description: "Let it think before it answers, or not",
  },
  pin: { type: "boolean", negatable: true, description: "Never unload it to make room, or do" },
  "trust-remote-code": {
    type: "boolean",
    negatable: true,
    description: "Let Python that comes with the model run, where an engine needs it; or not",
  },
  "allow-pickle": {
    type: "boolean",
    negatable: true,
    description: "Open weights that are pickles, which can run code; or not",
  },
  unset: {
    type: "string",
    multiple: true,
    valueHint: "SETTING",
    description: "Forget what is stored for this setting",
  },
} as const satisfies ArgumentDefinitions;

/** Flags without a value. */
const SWITCHES = {
  think: "think",
  pin: "pinned",
  "trust-remote-code": "trust_remote_code",
  "allow-pickle": "allow_pickle",
} as const satisfies Readonly<Record<string, SettingName>>;

export const SETTING_FLAGS: ArgumentDefinitions = {
  ...Object.fromEntries(
    Object.entries(VALUED).map(([name, flag]): [string, ArgumentDefinition] => [
      name,
      { type: "string", valueHint: flag.hint, description: flag.description },
    ]),
  ),
  ...OTHERS,
  ...Object.fromEntries(
    Object.entries(SYNONYMS).map(([name, meant]): [string, ArgumentDefinition] => [
      name,
      {
        type: "string",
        valueHint: VALUED[meant]?.hint ?? "VALUE",
        description: `The same as \`--${meant}\``,
      },
    ]),
  ),
};

/** What is named is set, what is null is unset. */
export type Patch = { readonly [K in SettingName]?: ModelSettings[K] | null };

/**
 * @param args of a command with `SETTING_FLAGS`
 * @param engineFlags the words behind `--`
 * @throws usage
 */
export function toPatch(
  args: Readonly<Record<string, unknown>>,
  engineFlags: readonly string[],
): Patch {
  const patch: Record<string, unknown> = {};
  for (const name of list(args["unset"])) patch[toSettingName(name)] = null;
  for (const [name, value] of Object.entries(args)) {
    const meant = (Object.hasOwn(SYNONYMS, name) ? SYNONYMS[name] : undefined) ?? name;
    const flag = Object.hasOwn(VALUED, meant) ? VALUED[meant] : undefined;
    if (flag !== undefined && typeof value === "string") {
      set(patch, flag.setting, flag.parse(value, `--${name}`));
    }
  }
  const lora = list(args["lora"]);
  if (lora.length > 0)
    set(
      patch,
      "lora",
      lora.map((path) => resolve(path)),
    );
  for (const [flag, setting] of Object.entries(SWITCHES)) {
    if (typeof args[flag] === "boolean") set(patch, setting, args[flag]);
  }
  if (engineFlags.length > 0) set(patch, "runtime_flags", engineFlags);
  return patch;
}

// --- internal ---

function sampling(
  [setting, hint]: readonly [SettingName, string],
  description: string,
  parse = number,
): SettingFlag {
  return { setting, hint, description, parse };
}

function set(patch: Record<string, unknown>, setting: SettingName, value: unknown): void {
  if (Object.hasOwn(patch, setting)) {
    throw new AppError("usage", `\`${setting}\` is given twice`, { hint: "Give it once." });
  }
  patch[setting] = value;
}

function list(value: unknown): readonly string[] {
  return Array.isArray(value) ? (value as readonly string[]) : [];
}

/** As a flag or as `configure show` writes it. */
function toSettingName(typed: string): SettingName {
  const name = typed.replace(/^--/, "");
  const meant = (Object.hasOwn(SYNONYMS, name) ? SYNONYMS[name] : undefined) ?? name;
  const flag = Object.hasOwn(VALUED, meant) ? VALUED[meant]?.setting : undefined;
  const names: readonly SettingName[] = [
    ...Object.values(VALUED).map(({ setting }) => setting),
    "lora",
    ...Object.values(SWITCHES),
    "runtime_flags",
  ];
  const found = flag ?? names.find((one) => one === name.replaceAll("-", "_"));
  if (found !== undefined) return found;
  const guess = nearest(name.replaceAll("-", "_"), names);
  throw new AppError("usage", `there is no setting \`${typed.slice(0, 80)}\``, {
    hint: guess === undefined ? `Settings are: ${names.join(", ")}.` : `Did you mean \`${guess}\`?`,
  });
}

function toNumber(value: string, flag: string, form: RegExp): number {
  if (form.test(value.trim())) return Number(value);
  throw new AppError("usage", `\`${value.slice(0, 80)}\` is not a value of \`${flag}\``, {
    hint: "Give a number.",
  });
}
