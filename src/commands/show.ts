import type { ModelDetails } from "../api/models.ts";
import { connect } from "../client/connect.ts";
import { formatBytes } from "../terminal/bytes.ts";
import { printJson } from "../terminal/json.ts";
import { print } from "../terminal/output.ts";
import { stripControls } from "../terminal/style.ts";
import { JSON_FLAG, REMOTE_FLAG, defineCommand } from "./command.ts";

/** Width of the labels. */
const LABEL_COLUMNS = 14;

export const command = defineCommand({
  args: {
    model: { type: "positional", description: "A name, an id, or the first 12 digits of one" },
    remote: REMOTE_FLAG,
    json: JSON_FLAG,
  },
  async run({ args, config, paths, signal }) {
    const remote = args.remote === true;
    const client = await connect(remote ? "transfer" : "models", { config, paths, signal });
    const model = await client.inspect(args.model, { signal, remote });
    if (args.json === true) return printJson(model);
    await print(renderModel(model));
  },
});

/** Facts one a line, blanks left out, then the GGUF header sorted by key. */
export function renderModel(model: ModelDetails): string {
  const { config } = model;
  const facts: readonly (readonly [string, string | null])[] = [
    ["Model:", model.id],
    ["Tags:", model.tags.join(", ")],
    ["Created:", model.created <= 0 ? null : new Date(model.created * 1000).toISOString()],
    ["Format:", config.format],
    ["Architecture:", config.architecture],
    ["Parameters:", config.parameters],
    ["Quantization:", config.quantization],
    ["Size:", formatBytes(model.size_bytes)],
    ["Context:", config.context_size === null ? null : String(config.context_size)],
  ];
  const lines = facts
    .filter(([, value]) => value !== null && value !== "")
    .map(([label, value]) => label.padEnd(LABEL_COLUMNS) + stripControls(value ?? ""));
  const header = Object.entries(config.gguf ?? {}).toSorted(([a], [b]) => (a < b ? -1 : 1));
  if (header.length > 0)
    lines.push(
      "",
      "GGUF metadata:",
      ...header.map(([key, value]) => `  ${key}: ${oneLine(value)}`),
    );
  return `${lines.join("\n")}\n`;
}

// --- internal ---

/** A chat template spans pages; the first line says which it is, `--json` has it whole. */
function oneLine(value: string): string {
  const [first = "", ...rest] = value.split("\n");
  const shown = stripControls(first);
  return rest.length === 0 ? shown : `${shown} … (${rest.length} more lines)`;
}
