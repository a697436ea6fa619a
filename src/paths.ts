/** Where Tug keeps things: `TUG_HOME` alone if set, else the XDG directories (the platform's own elsewhere). */
import { createHash } from "node:crypto";
import { homedir } from "node:os";
import { isAbsolute, join, resolve } from "node:path";

export interface Paths {
  /** The model store, an OCI image layout. `MODELS_PATH` overrides. */
  readonly models: string;
  /** Installed engines: `<engine>/<version>-<variant>/`. */
  readonly backends: string;
  readonly logs: string;
  /** Sockets and the lock of the runner; private (0700). */
  readonly run: string;
  readonly cache: string;
  readonly database: string;
  readonly configFile: string;
  /** The certificate authority that `tug serve --tls` makes, and its certificate; private (0700). */
  readonly tls: string;
  /** Lines typed in the chat. */
  readonly historyFile: string;
  /** Saved conversations. */
  readonly chats: string;
}

type Env = Readonly<Record<string, string | undefined>>;

/** sockaddr_un holds 108 bytes on Linux and 104 on macOS, the terminating zero included. */
export const SOCKET_PATH_LIMIT = 103;
/** Room for the longest name we put into the run directory: `worker-<n>.sock`, `runner.sock.<pid>`. */
const SOCKET_NAME_RESERVE = 24;

export function resolvePaths(
  env: Env = process.env,
  platform: NodeJS.Platform = process.platform,
): Paths {
  const base = env["TUG_HOME"]
    ? homeLayout(resolve(env["TUG_HOME"]))
    : platformLayout(env, platform);
  const models = env["MODELS_PATH"] ? resolve(env["MODELS_PATH"]) : join(base.data, "models");
  return {
    models,
    backends: join(base.data, "backends"),
    logs: join(base.state, "logs"),
    run: shortRunDirectory(base.run, platform),
    cache: base.cache,
    database: join(base.state, "tug.db"),
    configFile: join(base.config, "config.toml"),
    tls: join(base.state, "tls"),
    historyFile: join(base.state, "history"),
    chats: join(base.data, "chats"),
  };
}

// --- internal ---

interface Layout {
  readonly data: string;
  readonly state: string;
  readonly config: string;
  readonly cache: string;
  readonly run: string;
}

function homeLayout(home: string): Layout {
  return {
    data: home,
    state: home,
    config: home,
    cache: join(home, "cache"),
    run: join(home, "run"),
  };
}

function platformLayout(env: Env, platform: NodeJS.Platform): Layout {
  const home = env["HOME"] || env["USERPROFILE"] || homedir();
  if (platform === "darwin") {
    const support = join(home, "Library", "Application Support", "tug");
    const cache = join(home, "Library", "Caches", "tug");
    return { data: support, state: support, config: support, cache, run: join(support, "run") };
  }
  if (platform === "win32") {
    const local = join(env["LOCALAPPDATA"] || join(home, "AppData", "Local"), "tug");
    return {
      data: local,
      state: local,
      config: local,
      cache: join(local, "cache"),
      run: join(local, "run"),
    };
  }
  const xdg = (name: string, fallback: string): string => {
    const value = env[name];
    // The XDG specification says that a relative path is to be ignored.
    return join(value && isAbsolute(value) ? value : join(home, fallback), "tug");
  };
  const state = xdg("XDG_STATE_HOME", ".local/state");
  return {
    data: xdg("XDG_DATA_HOME", ".local/share"),
    state,
    config: xdg("XDG_CONFIG_HOME", ".config"),
    cache: xdg("XDG_CACHE_HOME", ".cache"),
    // Not XDG_RUNTIME_DIR: cron, su and ssh lack it, and two places would mean two runners on one database.
    run: join(state, "run"),
  };
}

/** A run directory too deep for a socket becomes a hashed name under /tmp, wherever TMPDIR points. */
function shortRunDirectory(directory: string, platform: NodeJS.Platform): string {
  if (platform === "win32") return directory;
  if (Buffer.byteLength(directory) + SOCKET_NAME_RESERVE <= SOCKET_PATH_LIMIT) return directory;
  const hash = createHash("sha256").update(directory).digest("hex").slice(0, 12);
  return join("/tmp", `tug-${process.getuid?.() ?? 0}-${hash}`);
}
