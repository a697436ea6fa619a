import type { WorkerStatus } from "../api/engines.ts";
import { connect } from "../client/connect.ts";
import { displayReference } from "../oci/reference.ts";
import { formatBytes, formatDuration } from "../terminal/bytes.ts";
import { printJson } from "../terminal/json.ts";
import { print } from "../terminal/output.ts";
import { stripControls } from "../terminal/style.ts";
import { JSON_FLAG, defineCommand } from "./command.ts";

const HEADERS = [
  "MODEL NAME",
  "BACKEND",
  "MODE",
  "DEVICE",
  "MEMORY",
  "CONTEXT",
  "REQUESTS",
  "STATE",
  "UNTIL",
];

export const command = defineCommand({
  args: { json: JSON_FLAG },
  details:
    "MEMORY is what it holds now, of what it was planned with; REQUESTS those in flight, of those it serves at once.",
  async run({ args, config, paths, signal }) {
    const client = await connect("models", { config, paths, signal });
    const workers = await client.listWorkers({ signal });
    if (args.json === true) return printJson(workers);
    const { renderTable } = await import("../terminal/table.ts");
    const now = Date.now();
    await print(
      renderTable(
        HEADERS,
        workers.map((worker) => toRow(worker, now)),
      ),
    );
    for (const note of workers.flatMap(notes)) process.stderr.write(`${stripControls(note)}\n`);
  },
});

/** Of another runner any member may be missing. */
export function toRow(worker: WorkerStatus, nowMs: number): string[] {
  const { slots, context_size: context, devices } = worker;
  return [
    displayReference(worker.model_name),
    worker.backend_name,
    worker.mode,
    devices?.join(", ") || "-",
    memory(worker),
    context === null || context === undefined ? "-" : String(context),
    slots === null || slots === undefined ? String(worker.requests) : `${worker.requests}/${slots}`,
    state(worker),
    until(worker, nowMs),
  ];
}

/** When the worker goes: `Forever`, or the time left; `-` while that is not decided. */
export function until(worker: WorkerStatus, nowMs: number): string {
  if (worker.state === "draining" || worker.loading) return "-";
  if (worker.pinned || worker.keep_alive_ms < 0) return "Forever";
  const leftMs =
    worker.expires_at === null ? worker.keep_alive_ms : Date.parse(worker.expires_at) - nowMs;
  return leftMs <= 0 ? "Expiring" : `${formatDuration(leftMs)} from now`;
}

/** What is not as it should be, a line each. */
export function notes(worker: WorkerStatus): string[] {
  const name = displayReference(worker.model_name);
  const differences = (worker.mismatches ?? []).map(
    ({ name: setting, wanted, actual }) =>
      `error: ${name} runs with ${setting} ${show(actual)}, not ${show(wanted)}; see \`tug explain ${name}\``,
  );
  if (worker.sandbox === "none")
    return [...differences, `note: ${name} runs without a sandbox: it sees what you see`];
  if (worker.shares_network !== true) return differences;
  return [...differences, `note: ${name} shares the network: nothing parts its engine from it`];
}

// --- internal ---

/** What a setting is shown as. Characters. */
const MAX_VALUE = 80;

function memory({ memory_actual: actual, memory_estimate: estimate }: WorkerStatus): string {
  const planned = formatBytes(sum(estimate));
  return actual === null || actual === undefined
    ? `-/${planned}`
    : `${formatBytes(sum(actual))}/${planned}`;
}

function sum(bytes: Readonly<Record<string, number>> | undefined): number | undefined {
  return bytes && Object.values(bytes).reduce((total, one) => total + one, 0);
}

function state({ state: name, pinned, progress, loading }: WorkerStatus): string {
  if (name === "draining") return "Stopping";
  if (name === "asleep") return "Asleep";
  if (!loading) return pinned ? "Ready, pinned" : "Ready";
  const phase = progress?.phase ?? "loading";
  const { done_bytes: done = null, total_bytes: total = null } = progress ?? {};
  const percent =
    done === null || !total ? "" : ` ${Math.min(100, Math.floor((done / total) * 100))}%`;
  return `${phase.charAt(0).toUpperCase()}${phase.slice(1)}${percent}`;
}

function show(value: unknown): string {
  return (JSON.stringify(value) ?? "nothing").slice(0, MAX_VALUE);
}
