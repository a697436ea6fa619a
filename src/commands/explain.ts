import type { ExplainResult } from "../api/settings.ts";
import { connect } from "../client/connect.ts";
import { displayReference } from "../oci/reference.ts";
import { printJson } from "../terminal/json.ts";
import { print } from "../terminal/output.ts";
import { JSON_FLAG, defineCommand } from "./command.ts";
import { parseContext } from "./package.ts";
import { formatSetting, toWord } from "./setting-text.ts";

export const command = defineCommand({
  args: {
    model: { type: "positional", description: "The model" },
    mode: {
      type: "string",
      options: ["completion", "embedding", "reranking", "image-generation"],
      description: "What it is used for",
    },
    backend: { type: "string", valueHint: "NAME", description: "With this engine" },
    "ctx-size": {
      type: "string",
      valueHint: "N",
      description: "As if a request asked for this context",
    },
    json: JSON_FLAG,
  },
  details:
    "Shows every setting that holds and where it comes from, the engine's command line, and what a running engine says of itself.",
  /** @returns 1 if the running engine does something else than it was told */
  async run({ args, config, paths, signal }) {
    const context = args["ctx-size"];
    const client = await connect("models", { config, paths, signal });
    const result = await client.explain(
      {
        model: args.model,
        ...(args.mode === undefined ? {} : { mode: args.mode as ExplainResult["mode"] }),
        ...(args.backend === undefined ? {} : { backend: args.backend }),
        ...(context === undefined ? {} : { context_size: parseContext(context) }),
      },
      { signal },
    );
    if (args.json === true) await printJson(result);
    else await print(await render(result));
    return result.mismatches.length === 0 ? 0 : 1;
  },
});

// --- internal ---

async function render(result: ExplainResult): Promise<string> {
  const { renderTable } = await import("../terminal/table.ts");
  const settings = renderTable(
    ["SETTING", "VALUE", "SOURCE"],
    result.settings.map(({ name, value, source, ignored }) => [
      name,
      formatSetting(value),
      ignored === undefined ? source : `${source}; not for ${result.backend}: ${ignored}`,
    ]),
  );
  const line =
    result.command === null
      ? "No engine is installed yet; the first run installs one."
      : result.command.map(toWord).join(" ");
  const facts = renderTable(
    ["MODEL", "ENGINE", "MODE", "SANDBOX"],
    [[displayReference(result.model_name), result.backend, result.mode, sandboxOf(result)]],
  );
  return `${facts}\n${settings}\nCOMMAND\n${line}\n\n${renderReport(result)}`;
}

function sandboxOf({ sandbox, shares_network }: ExplainResult): string {
  return shares_network === true && sandbox !== "none" ? `${sandbox}, shares the network` : sandbox;
}

function renderReport({ backend, is_loaded, reported, mismatches }: ExplainResult): string {
  if (!is_loaded) return "It is not loaded, so no engine says anything of itself.\n";
  if (reported === null || Object.keys(reported).length === 0)
    return `It is loaded. ${backend} does not tell its settings: the command says all there is to know.\n`;
  const said = Object.entries(reported).map(
    ([name, value]) => `  ${name} = ${formatSetting(value)}\n`,
  );
  const lines = mismatches.map(
    ({ name, wanted, actual }) =>
      `  ${name}: should be ${formatSetting(wanted)}, is ${formatSetting(actual)}\n`,
  );
  const verdict =
    lines.length === 0
      ? "That is what it was told.\n"
      : `That is not what the settings say; the next request loads it anew:\n${lines.join("")}`;
  return `The running engine says:\n${said.join("")}${verdict}`;
}
