/** The system as the readers of this folder ask it; tests answer with recorded texts instead. */
import { readdir, readFile } from "node:fs/promises";
import { freemem, totalmem } from "node:os";
import { askTool, type Env, probe, type ToolAnswer } from "./probe.ts";

export interface HardwareIo {
  /** The file's text, or nothing if there is none or it cannot be read. */
  read(path: string): Promise<string>;
  /** Names in a directory; none if there is no such directory. */
  list(path: string): Promise<readonly string[]>;
  /** What a tool prints, or nothing. Bounded in time and size. */
  run(argv: readonly string[]): Promise<string>;
  /** As `run`, and how that went. */
  ask(argv: readonly string[]): Promise<ToolAnswer>;
  /** As the runtime knows it, for systems of which no reader here knows more. */
  memory(): { readonly totalBytes: number; readonly freeBytes: number };
}

export function systemIo(options: { env: Env; signal?: AbortSignal | undefined }): HardwareIo {
  return {
    read: (path) => readFile(path, "utf8").catch(() => ""),
    list: (path) => readdir(path).catch(() => []),
    run: (argv) => probe(argv, options),
    ask: (argv) => askTool(argv, options),
    memory: () => ({ totalBytes: totalmem(), freeBytes: freemem() }),
  };
}
