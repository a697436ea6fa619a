import type { AvailableEngine, InstalledEngine, UseRequest } from "../api/engines.ts";
import { connect } from "../client/connect.ts";
import { listAvailableEngines, useEngine } from "../client/engines.ts";
import { AppError } from "../errors.ts";
import { nearest } from "../nearest.ts";
import { formatBytes } from "../terminal/bytes.ts";
import { printJson } from "../terminal/json.ts";
import { print } from "../terminal/output.ts";
import { stripControls } from "../terminal/style.ts";
import { type CommandContext, JSON_FLAG, defineCommand } from "./command.ts";

const ACTIONS = ["list", "use", "rollback"] as const;
type Action = (typeof ACTIONS)[number];

const HEADERS = ["ENGINE", "FORMATS", "MODES", "VERSION", "VARIANT", "SOURCE", "SIZE", "STATE"];

/** What an engine is in that is not installed; its problem follows. */
const STATES: Readonly<Record<AvailableEngine["state"], string>> = {
  installed: "installed",
  installable: "not installed",
  unavailable: "not available",
  unsupported: "does not run here",
};

const ARGS = {
  action: {
    type: "positional",
    required: false,
    description: "list (unless given), use or rollback",
  },
  names: {
    type: "positional",
    required: false,
    rest: true,
    description: "The engine, and with use the version",
  },
  json: JSON_FLAG,
} as const;

type Context = CommandContext<typeof ARGS>;

export const command = defineCommand({
  args: ARGS,
  details: `\`tug engines use NAME VERSION[-VARIANT]\` makes an installed version the one that models are loaded with, \`tug engines
rollback NAME\` the one before it. Models that are loaded keep theirs. * is the one in use. \`[engines."NAME"]\` with
\`version = "V"\` in config.toml says which version \`tug install-runner\` and the first model install.`,
  async run(context) {
    const action = toAction(context.args.action ?? "list");
    if (action === "list") return list(context);
    return change(context, toRequest(action, context.args.names));
  },
});

/** One row a version; of the engine itself only the first says something. */
export function toRows(engine: AvailableEngine): string[][] {
  const { name, formats, modes, installed } = engine;
  const said = [name, formats.join(","), modes.join(",")];
  if (installed.length === 0) return [[...said, "-", "-", "-", "-", STATES[engine.state] ?? "-"]];
  return installed.map((version, index) => [
    ...(index === 0 ? said : ["", "", ""]),
    ...toCells(version, engine),
  ]);
}

/** What is missing and what to do, a line each. */
export function toNotes({ name, state, problem, hint, installed }: AvailableEngine): string[] {
  const { reason } = installed.find(({ active }) => active) ?? {};
  const chosen = reason === undefined ? [] : [`chosen: ${name}: ${reason}`];
  // Which engines there are says the table; that one more could be installed is no news.
  if (problem === null) return chosen;
  const what = state === "installed" ? "" : `${STATES[state] ?? state}: `;
  const lines = [...chosen, `note: ${name}: ${what}${problem}`];
  return hint === null ? lines : [...lines, `hint: ${hint}`];
}

// --- internal ---

function toCells(version: InstalledEngine, { previous, pinned_version: pinned }: AvailableEngine) {
  const label = `${version.version}-${version.variant}`;
  const states = [
    version.active ? "in use" : "installed",
    ...(pinned !== null && version.pinned ? ["pinned"] : []),
    ...(previous === label && !version.active ? ["previous"] : []),
  ];
  return [
    `${version.active ? "*" : " "} ${version.version}`,
    version.variant,
    version.source,
    version.size_bytes === 0 ? "-" : formatBytes(version.size_bytes),
    states.join(", "),
  ];
}

function toAction(word: string): Action {
  const found = ACTIONS.find((action) => action === word);
  if (found !== undefined) return found;
  const guess = nearest(word, ACTIONS);
  throw new AppError("usage", `\`${word}\` is nothing to do with engines`, {
    hint:
      guess === undefined
        ? `Use one of ${ACTIONS.join(", ")}.`
        : `Did you mean \`tug engines ${guess}\`?`,
  });
}

/** @throws usage */
function toRequest(action: "use" | "rollback", names: readonly string[]): UseRequest {
  const [backend = "", version = "", ...rest] = names;
  if (action === "rollback") {
    if (backend !== "" && version === "" && rest.length === 0) return { backend, rollback: true };
    throw new AppError("usage", "say which engine to roll back", {
      hint: "Write `tug engines rollback NAME`; `tug engines` shows the names.",
    });
  }
  if (backend !== "" && version !== "" && rest.length === 0) return { backend, version };
  throw new AppError("usage", "say which version of which engine to use", {
    hint: "Write `tug engines use NAME VERSION`; `tug engines` shows what is installed.",
  });
}

/**
 * In this process unless another machine is named: what is installed lies on the disk, and config.toml may be younger
 * than the runner.
 */
async function list({ args, config, paths, signal }: Context): Promise<void> {
  if (args.names.length > 0) {
    throw new AppError("usage", `unexpected argument \`${args.names[0]}\``, {
      hint: "`tug engines list` shows all engines.",
    });
  }
  const client = await connect("transfer", { config, paths, signal });
  const engines = await listAvailableEngines(client, { signal });
  if (args.json === true) return printJson(engines);
  const { renderTable } = await import("../terminal/table.ts");
  await print(renderTable(HEADERS, engines.flatMap(toRows)));
  for (const note of engines.flatMap(toNotes)) process.stderr.write(`${stripControls(note)}\n`);
}

/** The runner notices by the engine's record, before it loads the next model. */
async function change(
  { args, config, paths, signal }: Context,
  request: UseRequest,
): Promise<void> {
  const client = await connect("transfer", { config, paths, signal });
  const engine = await useEngine(client, request, { signal });
  if (args.json === true) return printJson(engine);
  await print(
    stripControls(`${engine.backend} ${engine.version} (${engine.variant}) is in use now.\n`),
  );
}
