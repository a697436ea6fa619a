import type { RequestRecord } from "../api/requests.ts";
import type { Client } from "../client/client.ts";
import { connect } from "../client/connect.ts";
import { clearRequests, findRequest, followRequests, listRequests } from "../client/requests.ts";
import { AppError } from "../errors.ts";
import { displayReference } from "../oci/reference.ts";
import { formatAge, formatDuration } from "../terminal/bytes.ts";
import { printJson } from "../terminal/json.ts";
import { openOutput, print } from "../terminal/output.ts";
import { stripControls } from "../terminal/style.ts";
import { answerText, promptText } from "./answer-text.ts";
import { JSON_FLAG, defineCommand } from "./command.ts";

const HEADERS = ["ID", "MODEL", "STARTED", "STATUS", "TOOK", "FIRST", "TOKENS", "PROMPT"];

/** Of a prompt in a line. Characters. */
const MAX_PROMPT = 40;
const MAX_MODEL = 40;
const MAX_LIMIT = 1000;

export const command = defineCommand({
  args: {
    id: { type: "positional", required: false, description: "Show this one whole" },
    follow: { type: "boolean", alias: "f", description: "Show requests as they are answered" },
    model: { type: "string", valueHint: "MODEL", description: "Only those to this model" },
    "include-existing": {
      type: "boolean",
      description: "With --follow: first those that are recorded already",
    },
    limit: { type: "string", valueHint: "N", description: "At most the last N (default 100)" },
    clear: { type: "boolean", description: "Forget all of them" },
    json: JSON_FLAG,
  },
  details: `Requests and answers are kept in tug.db on this machine, the last 1000 or 64 MiB, images and sounds cut short. Set
\`record_requests = false\` in config.toml, or TUG_RECORD_REQUESTS=0, to keep none. \`tug replay ID\` sends one again.`,
  async run({ args, config, paths, signal }) {
    const limit = args.limit === undefined ? undefined : parseLimit(args.limit);
    const json = args.json === true;
    const follow = args.follow === true;
    refuseContradictions({ ...args, follow });
    const client = await connect(follow ? "running" : "models", { config, paths, signal });
    if (args.clear === true) return clear(client, { json, signal });
    if (args.id !== undefined) return show(client, args.id, { json, signal });
    const query = { model: args.model, limit };
    if (!follow) return list(client, query, { json, signal });
    const includeExisting = args["include-existing"] === true;
    return followAll(client, { ...query, includeExisting }, { json, signal });
  },
});

/** @throws usage */
export function parseLimit(text: string): number {
  const limit = /^\d{1,4}$/.test(text) ? Number(text) : 0;
  if (limit >= 1 && limit <= MAX_LIMIT) return limit;
  throw new AppError("usage", `\`${text}\` is not a number of requests`, {
    hint: `Give a whole number from 1 to ${MAX_LIMIT}.`,
  });
}

/** `12+40`: tokens read and written. */
export function tokensOf(record: RequestRecord): string {
  const { input_tokens: input, output_tokens: output } = record;
  return input === null && output === null ? "-" : `${input ?? "?"}+${output ?? "?"}`;
}

/** A line of a table that does not end. */
export function toLine(record: RequestRecord): string {
  const time = record.started_at.slice(11, 19);
  const took = formatDuration(record.duration_ms);
  const what = record.error ?? excerpt(promptText(record.request));
  const line = `${time} ${record.id} ${shown(displayReference(record.model), MAX_MODEL)} ${record.status_code} ${took} ${tokensOf(record)} ${what}`;
  return `${oneLine(line)}\n`;
}

// --- internal ---

interface ShowOptions {
  readonly json: boolean;
  readonly signal: AbortSignal;
}

/** @throws usage */
function refuseContradictions(args: {
  readonly id?: string | undefined;
  readonly clear?: boolean | undefined;
  readonly follow: boolean;
  readonly "include-existing"?: boolean | undefined;
}): void {
  if (args["include-existing"] === true && !args.follow) {
    throw new AppError("usage", "`--include-existing` goes with `--follow`", {
      hint: "Without `--follow` those that are recorded are shown anyway.",
    });
  }
  const wanted = [args.id !== undefined, args.clear === true, args.follow].filter(Boolean);
  if (wanted.length <= 1) return;
  throw new AppError("usage", "an ID, `--follow` and `--clear` exclude each other", {
    hint: "Give one of them.",
  });
}

async function list(
  client: Client,
  query: { model: string | undefined; limit: number | undefined },
  { json, signal }: ShowOptions,
): Promise<void> {
  const groups = await listRequests(client, query, { signal });
  if (json) return printJson(groups);
  const records = groups
    .flatMap((group) => group.records)
    .toSorted((one, other) => Date.parse(one.started_at) - Date.parse(other.started_at));
  const { renderTable } = await import("../terminal/table.ts");
  await print(renderTable(HEADERS, records.map(toRow)));
}

async function followAll(
  client: Client,
  query: { model: string | undefined; limit: number | undefined; includeExisting: boolean },
  { json, signal }: ShowOptions,
): Promise<void> {
  const output = openOutput();
  const ends = AbortSignal.any([signal, output.closed]);
  try {
    for await (const record of followRequests(client, query, { signal: ends })) {
      const line = json ? `${JSON.stringify(record)}\n` : toLine(record);
      if (!(await output.write(line))) return;
    }
  } catch (error) {
    // A reader that left has seen what it wanted.
    if (!output.closed.aborted) throw error;
  }
}

async function show(client: Client, id: string, { json, signal }: ShowOptions): Promise<void> {
  const record = await findRequest(client, id, { signal });
  if (json) return printJson(record);
  const { request, response, ...facts } = record;
  const lines = Object.entries(facts)
    .filter(([, value]) => value !== null && String(value) !== "")
    .map(([name, value]) => `${name}: ${oneLine(String(value))}\n`);
  const answer = answerText(tryParse(response ?? "")) || (response ?? "(none)");
  const asked = promptText(request) || request;
  await print(`${lines.join("")}\n> ${stripControls(asked)}\n\n${stripControls(answer)}\n`);
}

async function clear(client: Client, { json, signal }: ShowOptions): Promise<void> {
  const removed = await clearRequests(client, { signal });
  if (json) return printJson({ removed });
  await print(`${removed} forgotten\n`);
}

function toRow(record: RequestRecord): string[] {
  return [
    record.id,
    shown(displayReference(record.model), MAX_MODEL),
    formatAge(record.started_at),
    String(record.status_code),
    formatDuration(record.duration_ms),
    record.first_token_ms === null ? "-" : formatDuration(record.first_token_ms),
    tokensOf(record),
    excerpt(promptText(record.request)),
  ];
}

function excerpt(prompt: string): string {
  return shown(prompt.trim().replaceAll(/\s+/g, " "), MAX_PROMPT);
}

function shown(text: string, max: number): string {
  return text.length > max ? `${text.slice(0, max - 1)}…` : text;
}

function oneLine(text: string): string {
  return stripControls(text).replaceAll(/[\n\t]+/g, " ");
}

function tryParse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
