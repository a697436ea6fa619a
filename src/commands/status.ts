import type { EngineInstallation, RunnerInfo } from "../api/engines.ts";
import { connect, runnerSocket } from "../client/connect.ts";
import { printJson } from "../terminal/json.ts";
import { print } from "../terminal/output.ts";
import { JSON_FLAG, defineCommand } from "./command.ts";

const HEADERS = ["ENGINE", "VERSION", "VARIANT", "SOURCE", "IN USE"];

export const command = defineCommand({
  args: { json: JSON_FLAG },
  /** @returns 1 if no runner runs; asking starts none */
  async run({ args, config, paths, signal }) {
    const client = await connect("models", { config, paths, signal });
    const info =
      client.transport.kind === "in-process" ? undefined : await client.runner({ signal });
    const engines = info?.engines ?? (await client.listEngines({ signal }));
    if (args.json === true)
      await printJson(toStatus(info, { engines, socket: runnerSocket(config, paths) }));
    else await print(await renderStatus(info, engines));
    return info === undefined ? 1 : 0;
  },
});

// --- internal ---

function toStatus(
  info: RunnerInfo | undefined,
  fallback: { engines: readonly EngineInstallation[]; socket: string },
): unknown {
  return {
    running: info !== undefined,
    endpoint: info?.endpoint ?? null,
    endpoint_problem: info?.endpoint_problem ?? null,
    socket: info?.socket ?? fallback.socket,
    version: info?.version ?? null,
    pid: info?.pid ?? null,
    started_at: info?.started_at ?? null,
    engines: fallback.engines,
  };
}

async function renderStatus(
  info: RunnerInfo | undefined,
  engines: readonly EngineInstallation[],
): Promise<string> {
  const { renderTable } = await import("../terminal/table.ts");
  const rows = engines.map((engine) => [
    engine.backend,
    engine.version,
    engine.variant,
    engine.source,
    engine.active ? "yes" : "no",
  ]);
  const table =
    rows.length === 0
      ? "No engine is installed; the first run installs one.\n"
      : renderTable(HEADERS, rows);
  if (info === undefined)
    return `The runner is not running. It starts by itself with \`tug run\`.\n\n${table}`;
  const endpoint = info.endpoint ?? `none: ${info.endpoint_problem ?? "not listening on TCP"}`;
  return `The runner is running (version ${info.version}, pid ${info.pid}).\nEndpoint: ${endpoint}\nSocket:   ${info.socket ?? "none"}\n\n${table}`;
}
