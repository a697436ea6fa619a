/** What a running container tells. */
import { readlink } from "node:fs/promises";
import { basename, dirname } from "node:path";
import { runTool } from "../../src/container/command.ts";
import type { AskEngine, EngineReport, StartedRun } from "../../src/runtime/backend.ts";
import { containerName } from "./args.ts";

/** It knows it by heart, unless its disk is busy. */
const INSPECT_MS = 10_000;
/** Of a model's name. */
const MAX_NAME = 200;

/** `/v1/models`: it answers to the first name there; others are of adapters. @throws what `ask` throws */
export async function nimReport(ask: AskEngine): Promise<EngineReport> {
  const { data } = (await ask("/v1/models")) as { readonly data?: unknown };
  const [model] = Array.isArray(data) ? (data as unknown[]) : [];
  const { id, max_model_len: length } = (model ?? {}) as Readonly<Record<string, unknown>>;
  const isLength = typeof length === "number" && Number.isSafeInteger(length) && length > 0;
  return {
    ...(typeof id === "string" && id.length <= MAX_NAME ? { served_model: id } : {}),
    ...(isLength ? { context_size: length } : {}),
  };
}

/** The container's first process descends from the container engine, not from its client. */
export async function findNimProcess(
  { installation, socket, port }: StartedRun,
  signal: AbortSignal,
): Promise<number | undefined> {
  const [, , program = ""] = installation.command;
  const place = dirname(socket);
  const name = containerName(dirname(place), basename(place), port);
  const argv = [program, "inspect", "--format", "{{.State.Pid}}", name];
  const { exitCode, stdout } = await runTool(argv, { signal, timeoutMs: INSPECT_MS });
  const pid = Number(stdout.trim());
  const isNumber = exitCode === 0 && Number.isSafeInteger(pid) && pid > 1;
  return isNumber && (await isContained(pid)) ? pid : undefined;
}

// --- internal ---

/**
 * Docker Desktop, and a daemon on another machine, count processes of their own: here that number is nobody, or somebody
 * else. Whose namespace may not be read belongs to another user, as containers do.
 */
async function isContained(pid: number): Promise<boolean> {
  const own = await readlink("/proc/self/ns/pid").catch(() => undefined);
  try {
    return (await readlink(`/proc/${pid}/ns/pid`)) !== own;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== "ENOENT";
  }
}
