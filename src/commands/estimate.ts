import type { EstimateRequest, EstimateResult } from "../api/settings.ts";
import { connect } from "../client/connect.ts";
import { AppError } from "../errors.ts";
import { displayReference } from "../oci/reference.ts";
import { formatBytes } from "../terminal/bytes.ts";
import { printJson } from "../terminal/json.ts";
import { print } from "../terminal/output.ts";
import { stripControls } from "../terminal/style.ts";
import { type ArgumentValues, JSON_FLAG, defineCommand } from "./command.ts";
import { parseContext } from "./package.ts";

const ARGS = {
  model: { type: "positional", description: "A model, here or where it could be pulled from" },
  mode: {
    type: "string",
    options: ["completion", "embedding", "reranking", "image-generation"],
    description: "What it is used for",
  },
  "ctx-size": { type: "string", valueHint: "N", description: "Context in tokens" },
  parallel: { type: "string", valueHint: "N", description: "Requests served at once" },
  "cache-type-k": { type: "string", valueHint: "TYPE", description: "Type of the cache's keys" },
  "cache-type-v": { type: "string", valueHint: "TYPE", description: "Type of the cache's values" },
  "draft-model": { type: "string", valueHint: "MODEL", description: "A model that drafts for it" },
  json: JSON_FLAG,
} as const;

export const command = defineCommand({
  args: ARGS,
  details: `NEEDS is the estimate, MEASURED the most it ever held with these settings, HELD what loaded models count for. Of a
model that is not here only the header is read. The exit code is 1 if it does not fit.`,
  /** @returns 1 if it does not fit */
  async run({ args, config, paths, signal }) {
    const request = toRequest(args);
    // A runner may be allowed to ask other machines when this command is not.
    const need = config.offline.value ? "transfer" : "models";
    const client = await connect(need, { config, paths, signal });
    const result = await client.estimate(request, { signal });
    if (args.json === true) await printJson(result);
    else await print(await render(result));
    return result.fits ? 0 : 1;
  },
});

// --- internal ---

function toRequest(args: ArgumentValues<typeof ARGS>): EstimateRequest {
  const context = args["ctx-size"];
  const said = {
    mode: args.mode,
    context_size: context === undefined ? undefined : parseContext(context),
    parallel: args.parallel === undefined ? undefined : parseCount("--parallel", args.parallel),
    cache_type_k: args["cache-type-k"],
    cache_type_v: args["cache-type-v"],
    draft_model: args["draft-model"],
  };
  const given = Object.entries(said).filter(([, value]) => value !== undefined);
  return { model: args.model, ...Object.fromEntries(given) };
}

function parseCount(flag: string, text: string): number {
  const count = /^\d{1,4}$/.test(text) ? Number(text) : 0;
  if (count >= 1) return count;
  throw new AppError("usage", `\`${text.slice(0, 80)}\` is not a value of \`${flag}\``, {
    hint: "Give a whole number above 0.",
  });
}

async function render(result: EstimateResult): Promise<string> {
  const { renderTable } = await import("../terminal/table.ts");
  const { parts, measured, devices } = result;
  const sum = Object.values(parts).reduce((total, bytes) => total + bytes, 0);
  const purposes = renderTable(
    ["FOR", "ESTIMATE"],
    [...Object.entries(parts), ["all", sum] as const].map(([name, bytes]) => [
      name,
      formatBytes(bytes),
    ]),
  );
  const places = renderTable(
    ["DEVICE", "NEEDS", "MEASURED", "BUDGET", "HELD", "FREE", "TOTAL"],
    devices.map((device) => [
      device.name === null ? device.id : `${device.id} (${device.name})`,
      formatBytes(result.estimate[device.id] ?? 0),
      measured === null ? "-" : formatBytes(measured[device.id] ?? 0),
      formatBytes(device.budget_bytes),
      formatBytes(device.held_bytes),
      formatBytes(device.free_bytes),
      formatBytes(device.total_bytes),
    ]),
  );
  return `${describe(result)}\n${purposes}\n${places}\n${verdict(result)}`;
}

function describe(result: EstimateResult): string {
  const { context_size, parallel, cache_type_k, cache_type_v } = result;
  const cache = cache_type_k === cache_type_v ? cache_type_k : `${cache_type_k}/${cache_type_v}`;
  const context = context_size === -1 ? "its own" : String(context_size);
  const place = result.is_local ? "" : " (not pulled)";
  return `${displayReference(result.model_name)}${place}: context ${context}, ${parallel} at once, cache ${cache}\n`;
}

function verdict({
  fits,
  largest_context: largest,
  trained_context: trained,
  advice,
}: EstimateResult): string {
  const most =
    largest === null
      ? ""
      : ` The largest context that fits is ${largest} tokens${largest === trained ? ", all it was trained for" : ""}.`;
  if (fits) return `It fits.${most}\n`;
  // With a smaller context the advice is that one.
  const other = largest === null && advice ? ` Instead: ${stripControls(advice)}.` : "";
  return `It does not fit.${most}${other}\n`;
}
