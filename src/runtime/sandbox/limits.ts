/**
 * What holds without isolation: resource limits, and no way to privileges by set-user-id programs. Pure.
 *
 * Processes are not limited: RLIMIT_NPROC counts all of a user's, so a bound for the engine would stop the user's own
 * programs. Neither are file sizes: the memory behind `/tmp` of the sandbox is no more than an engine may allocate anyway,
 * and shared memory of several GPUs counts as files.
 */
import type { Sandbox } from "./sandbox.ts";

/** Of an engine: sockets, shards, libraries and devices. vLLM asks for as many; more is a leak. */
const MAX_OPEN_FILES = 65_536;

/**
 * Core dumps would hold prompts. A hard limit that is lower already stays. Everything is a builtin of any shell, and
 * `$@` takes the shell's place and keeps its pid.
 */
const SCRIPT = `ulimit -c 0 2>/dev/null; ulimit -n ${MAX_OPEN_FILES} 2>/dev/null; exec "$@"`;

/** The command with limits on it and its descendants. */
export function withLimits(command: readonly string[]): readonly string[] {
  return ["/bin/sh", "-c", SCRIPT, "limits", ...command];
}

/** @param setpriv path of util-linux's program; without it privileges are as they are */
export function createLimits(setpriv: string | undefined): Sandbox {
  const prefix = setpriv === undefined ? [] : [setpriv, "--no-new-privs"];
  return { name: "limits", wrap: (command) => withLimits([...prefix, ...command]) };
}
