import type { EngineInstallation, RunnerInfo } from "../api/engines.ts";
import { connect, runnerSocket } from "../client/connect.ts";
import { printJson } from "../terminal/json.ts";
import { print } from "../terminal/output.ts";
import { JSON_FLAG, defineCommand } from "./command.ts";

const HEADERS = ["ENGINE", "VERSION", "VARIANT", "SOURCE", "IN USE"];

const NOT_RUNNING = {
  endpoint: null,
  endpoint_problem: null,
  version: null,
  pid: null,
  started_at: null,
} as const;

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
  fallback: Pick<RunnerInfo, "engines" | "socket">,
): unknown {
  const { endpoint, endpoint_problem, socket, version, pid, started_at, engines } = info ?? {
    ...NOT_RUNNING,
    ...fallback,
  };
  const running = info !== undefined;
  const sandbox = info?.sandbox ?? null;
  return {
    running,
    endpoint,
    endpoint_problem,
    socket,
    authority: info?.authority ?? null,
    version,
    pid,
    started_at,
    engines,
    sandbox,
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
  return `The runner is running (version ${info.version}, pid ${info.pid}).\nEndpoint: ${endpoint}\n${renderAuthority(info)}Socket:   ${info.socket ?? "none"}\n${renderSandbox(info)}\n${table}`;
}

function renderAuthority({ authority }: RunnerInfo): string {
  return authority === undefined || authority === null ? "" : `Trust:    ${authority}\n`;
}

function renderSandbox({ sandbox }: RunnerInfo): string {
  if (sandbox === undefined) return "";
  const problem = sandbox.problem === null ? "" : `: ${sandbox.problem}`;
  return `Sandbox:  ${sandbox.name}${problem}\n`;
}
