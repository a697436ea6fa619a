import type { ConfigureResult, ModeName, StoredSettingsRow } from "../api/settings.ts";
import type { Client } from "../client/client.ts";
import { connect } from "../client/connect.ts";
import { AppError } from "../errors.ts";
import { displayReference } from "../oci/reference.ts";
import { printJson } from "../terminal/json.ts";
import { print } from "../terminal/output.ts";
import { type CommandContext, JSON_FLAG, defineCommand } from "./command.ts";
import { SETTING_FLAGS, toPatch } from "./configure-flags.ts";
import { formatSetting } from "./setting-text.ts";

const ARGS = {
  model: {
    type: "positional",
    description: "The model; or `show [MODEL]`, or `reset MODEL`",
  },
  words: {
    type: "positional",
    rest: true,
    required: false,
    description: "Behind `--`: further flags of the engine",
  },
  mode: {
    type: "string",
    options: ["completion", "embedding", "reranking", "image-generation"],
    description: "Only when it is used for this",
  },
  all: { type: "boolean", description: "With `reset`: of all models" },
  json: JSON_FLAG,
  ...SETTING_FLAGS,
} as const;

type Context = CommandContext<typeof ARGS>;

export const command = defineCommand({
  args: ARGS,
  details: `Settings are kept, merged key by key, and hold from the next request on; for those of the engine's process that request
loads the model anew. \`tug explain MODEL\` shows what they make of it.

  tug configure pebble --context-size 8192 --keep-alive 1h
  tug configure pebble -- --no-warmup --rope-scaling yarn
  tug configure show pebble
  tug configure reset pebble

A model that is called \`show\` or \`reset\` is written with its tag: \`show:latest\`.`,
  async run(context) {
    const { args } = context;
    if (args.model === "show") return show(context);
    if (args.model === "reset") return reset(context);
    if (args.all === true) throw usage("`--all` goes with `reset` only");
    return change(context);
  },
});

// --- internal ---

async function change({ args, config, paths, signal }: Context): Promise<void> {
  const set = toPatch(args, args.words);
  if (Object.keys(set).length === 0) {
    throw usage("there is nothing to set", "Give settings, such as `--context-size 8192`.");
  }
  const client = await connect("models", { config, paths, signal });
  const mode = modeOf(args);
  const request = { model: args.model, set, ...(mode === undefined ? {} : { mode }) };
  const result = await client.configure(request, { signal });
  if (args.json === true) return printJson(result);
  return print(renderChange(args.model, result));
}

function renderChange(model: string, { settings, mode, applies }: ConfigureResult): string {
  const name = displayReference(model);
  const all = Object.entries(settings);
  const when = mode === null ? "" : ` when used for ${mode}`;
  if (all.length === 0) return `Nothing is set for ${name}${when} any more.\n`;
  const lines = all.map(([setting, value]) => `  ${setting} = ${formatSetting(value)}\n`);
  const note =
    applies === "now" ? "" : "It is loaded with other values: the next request loads it anew.\n";
  return `Set for ${name}${when}:\n${lines.join("")}${note}`;
}

async function show({ args, config, paths, signal }: Context): Promise<void> {
  const [model, ...more] = args.words;
  refuseMore(more);
  refuseSettings(args, "show");
  const client = await connect("models", { config, paths, signal });
  const rows = await client.listSettings({ signal, model });
  if (args.json === true) return printJson(rows);
  if (rows.length === 0) {
    return print(
      model === undefined
        ? "No model has settings.\n"
        : `Nothing is set for ${displayReference(model)}.\n`,
    );
  }
  const { renderTable } = await import("../terminal/table.ts");
  return print(renderTable(["MODEL", "MODE", "SETTING", "VALUE"], rows.flatMap(toCells)));
}

function toCells({ model_id, tags, mode, settings }: StoredSettingsRow): string[][] {
  const [tag] = tags;
  const name = tag === undefined ? model_id.slice(0, 19) : displayReference(tag);
  return Object.entries(settings).map(([setting, value]) => [
    name,
    mode ?? "all",
    setting,
    formatSetting(value),
  ]);
}

async function reset({ args, config, paths, signal }: Context): Promise<void> {
  const [model, ...more] = args.words;
  refuseMore(more);
  refuseSettings(args, "reset");
  if ((model === undefined) !== (args.all === true)) {
    throw usage("say which model's settings to reset", "Give one model, or `--all` alone.");
  }
  const client: Client = await connect("models", { config, paths, signal });
  const result = await client.resetSettings({ signal, model, mode: modeOf(args) });
  if (args.json === true) return printJson(result);
  const what = model === undefined ? "all models" : displayReference(model);
  return print(
    result.reset === 0 ? `Nothing was set for ${what}.\n` : `Reset the settings of ${what}.\n`,
  );
}

function modeOf(args: Context["args"]): ModeName | undefined {
  return args.mode as ModeName | undefined;
}

function refuseMore(words: readonly string[]): void {
  if (words.length > 0) throw usage(`unexpected argument \`${words[0]?.slice(0, 80)}\``);
}

function refuseSettings(args: Context["args"], verb: string): void {
  if (Object.keys(toPatch(args, [])).length > 0) {
    throw usage(
      `\`configure ${verb}\` sets nothing`,
      `A model that is called \`${verb}\` is written \`${verb}:latest\`.`,
    );
  }
}

function usage(
  message: string,
  hint = "Run the command with `--help` for how it is used.",
): AppError {
  return new AppError("usage", message, { hint });
}
