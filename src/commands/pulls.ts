import type { PullJob } from "../api/models.ts";
import type { Client } from "../client/client.ts";
import { connect } from "../client/connect.ts";
import { AppError } from "../errors.ts";
import { displayReference } from "../oci/reference.ts";
import { formatAge, formatBytes } from "../terminal/bytes.ts";
import { printJson } from "../terminal/json.ts";
import { print } from "../terminal/output.ts";
import { JSON_FLAG, defineCommand } from "./command.ts";

const HEADERS = ["PULL", "MODEL", "STATE", "PROGRESS", "STARTED"];

export const command = defineCommand({
  args: {
    action: {
      type: "positional",
      required: false,
      description: "`cancel`, to cancel pulls; without it they are listed",
    },
    ids: { type: "positional", required: false, rest: true, description: "Pulls to cancel" },
    cancel: {
      type: "string",
      valueHint: "ID",
      multiple: true,
      description: "Cancel this pull; what was fetched is kept",
    },
    json: JSON_FLAG,
  },
  details:
    "Lists what the runner pulls, and the last pulls that ended. A pull of another `tug pull` is not among them.",
  async run({ args, config, paths, signal }) {
    const ids = [...toCancel(args.action, args.ids), ...args.cancel];
    const client = await connect("models", { config, paths, signal });
    if (ids.length > 0) return cancel(client, ids, { json: args.json === true, signal });
    const jobs = await client.listPulls({ signal });
    if (args.json === true) return printJson(jobs);
    const { renderTable } = await import("../terminal/table.ts");
    await print(renderTable(HEADERS, jobs.map(toRow)));
  },
});

/** @throws usage */
export function toCancel(action: string | undefined, ids: readonly string[]): readonly string[] {
  if (action === undefined) return [];
  if (action !== "cancel") {
    throw new AppError("usage", `\`${action}\` is nothing that can be done with pulls`, {
      hint: "Write `tug pulls`, or `tug pulls cancel ID`.",
    });
  }
  if (ids.length > 0) return ids;
  throw new AppError("usage", "say which pull to cancel", {
    hint: "`tug pulls` lists them with their ids.",
  });
}

/** How far it is, or how it ended. */
export function progressOf(job: PullJob): string {
  if (job.error !== null && job.state === "failed") return job.error.message;
  if (job.total_bytes === null) return job.state === "done" ? "-" : formatBytes(job.done_bytes);
  const percent =
    job.total_bytes === 0 ? 100 : Math.floor((job.done_bytes * 100) / job.total_bytes);
  return `${percent}% of ${formatBytes(job.total_bytes)}`;
}

// --- internal ---

async function cancel(
  client: Client,
  ids: readonly string[],
  { json, signal }: { json: boolean; signal: AbortSignal },
): Promise<void> {
  const jobs: PullJob[] = [];
  for (const id of ids) jobs.push(await client.cancelPull(id, { signal }));
  if (json) return printJson(jobs);
  await print(jobs.map(({ id, state }) => `${id} ${state}\n`).join(""));
}

function toRow(job: PullJob): string[] {
  return [
    job.id,
    displayReference(job.model),
    job.state,
    progressOf(job),
    formatAge(job.started_at),
  ];
}
