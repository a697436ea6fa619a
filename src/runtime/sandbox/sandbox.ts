/** What every way of confining an engine offers. Values only. */

/** `auto`: the best there is; `require`: refuse to run without isolation of files and network. */
export type SandboxMode = "auto" | "off" | "require";

/**
 * `bubblewrap` (Linux), `seatbelt` (macOS), `job` (Windows): isolation. `limits`: resource limits and no_new_privs, but
 * it sees what its user sees. `container`: the engine itself is one of a container engine. `none`: nothing.
 */
export type SandboxName = "bubblewrap" | "seatbelt" | "job" | "limits" | "container" | "none";

/** What an engine may touch. Absolute paths; what is not named it does not see. `runtime/engine-view.ts` makes one. */
export interface SandboxView {
  /** Files and directories: its installation, the bundle's files (with what their links point to). Missing ones are skipped. */
  readonly readOnly: readonly string[];
  /**
   * Directories: where its socket is. The directory is the worker's own: a shared one would show it the sockets of the
   * runner and of other engines.
   */
  readonly writable: readonly string[];
  /** Where it starts; the first of `writable` unless said. */
  readonly startsIn?: string | undefined;
  /** Device files it may open, such as `/dev/dri`. */
  readonly devices: readonly string[];
  /** It runs with the system's libraries, which it then sees. Unless said: if its command starts with no loader of its own. */
  readonly needsSystem?: boolean | undefined;
  /** It listens on a port of 127.0.0.1, which no namespace of its own would show to anybody. */
  readonly sharesNetwork?: boolean | undefined;
  /** It speaks with other machines, too: shares the network, and reaches all of it. */
  readonly reachesOthers?: boolean | undefined;
  /** Names of the variables that the backend sets for it, which stay. Of the others few do. */
  readonly variables?: readonly string[] | undefined;
}

/** Around what starts a container there is nothing more. */
export const CONTAINER: Sandbox = { name: "container", wrap: (command) => command };

export interface Sandbox {
  readonly name: SandboxName;
  /**
   * The argv to spawn instead. It changes nothing and reads nothing.
   *
   * @throws internal for a path that is not absolute
   */
  wrap(command: readonly string[], view: SandboxView): readonly string[];
  /**
   * Sends SIGTERM to the engine inside, given the pid of what was spawned; false if it is not found. Absent where the
   * spawned process is the engine. The whole group must not get SIGTERM: what holds the sandbox would go first and
   * take the engine with it before it has ended its own way. SIGKILL for the group is right.
   */
  askToEnd?(pid: number): boolean;
}
