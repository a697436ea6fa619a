import type { WorkerStatus } from "../api/engines.ts";
import { connect } from "../client/connect.ts";
import { displayReference } from "../oci/reference.ts";
import { formatDuration } from "../terminal/bytes.ts";
import { printJson } from "../terminal/json.ts";
import { print } from "../terminal/output.ts";
import { JSON_FLAG, defineCommand } from "./command.ts";

const HEADERS = ["MODEL NAME", "BACKEND", "MODE", "REQUESTS", "UNTIL"];

export const command = defineCommand({
  args: { json: JSON_FLAG },
  async run({ args, config, paths, signal }) {
    const client = await connect("models", { config, paths, signal });
    const workers = await client.listWorkers({ signal });
    if (args.json === true) return printJson(workers);
    const { renderTable } = await import("../terminal/table.ts");
    const rows = workers.map((worker) => [
      displayReference(worker.model_name),
      worker.backend_name,
      worker.mode,
      String(worker.in_use),
      until(worker, Date.now()),
    ]);
    await print(renderTable(HEADERS, rows));
  },
});

/** When the worker goes: `Loading…`, `Forever`, or the time left. */
export function until(worker: WorkerStatus, nowMs: number): string {
  if (worker.state === "draining") return "Stopping…";
  if (worker.loading) return "Loading…";
  if (worker.keep_alive_ms < 0) return "Forever";
  const leftMs =
    worker.expires_at === null ? worker.keep_alive_ms : Date.parse(worker.expires_at) - nowMs;
  return leftMs <= 0 ? "Expiring" : `${formatDuration(leftMs)} from now`;
}
