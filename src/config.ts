/**
 * Settings from the environment and `config.toml`, parsed once. Precedence: flag (applied by the command) >
 * environment > config file > default. Every value remembers where it came from.
 */
import {
  oneOf,
  parseApiKey,
  parseBodySize,
  parseBoolean,
  parseConnections,
  parseCount,
  parseInsecure,
  parseList,
  parseLogLevel,
  parseNoText,
  parsePositive,
  parseRate,
  toAliases,
  toEngineTables,
  toTables,
} from "./config-values.ts";
import { readConfigFile } from "./config-file.ts";
import { parseHosts, parseImagePrefixes, parseOrigins, parseRpcServers } from "./config-names.ts";
import { AppError } from "./errors.ts";
import type { LogLevel } from "./log.ts";

export { parseConnections, parseRate };

export interface Setting<T> {
  readonly value: T;
  /** `default`, the name of the environment variable, or `config.toml`. */
  readonly source: string;
}

export interface Config {
  /** Base URL of a remote runner; empty: this machine's. */
  readonly host: Setting<string>;
  /** TCP port of the runner on this machine; 0 picks a free one. */
  readonly port: Setting<number>;
  /** Path of the runner's socket; empty: in the run directory. */
  readonly socket: Setting<string>;
  /** Milliseconds an idle worker stays loaded; -1 for ever. */
  readonly keepAliveMs: Setting<number>;
  /** Tokens of context for a model for which nothing else says it; 0: the largest that fits. */
  readonly contextSize: Setting<number>;
  /**
   * What workers may hold, as written: `8GB`, `60%`, or by device `ram=8GB,cuda:0=90%`; empty: a safe share.
   * `runtime/budget.ts` reads it.
   */
  readonly memoryBudget: Setting<string>;
  /** `host:port` of llama.cpp's servers on other machines, which models are shared out to. */
  readonly rpcServers: Setting<readonly string[]>;
  /** How engines are confined. */
  readonly sandbox: Setting<"auto" | "off" | "require">;
  /** Models loaded when the runner starts. */
  readonly preload: Setting<readonly string[]>;
  /** `[models."NAME"]`: settings of single models, as they stand in the file; checked where they are used. */
  readonly models: Setting<Readonly<Record<string, unknown>>>;
  /** `[engines."NAME"]`: settings of single engines, as they stand in the file; checked where they are used. */
  readonly engines: Setting<Readonly<Record<string, unknown>>>;
  /** `[aliases]`: names that clients ask for, and the models they get if the store has none of that name. */
  readonly aliases: Setting<Readonly<Record<string, string>>>;
  /** Whether requests and answers are recorded for `tug requests`. */
  readonly recordRequests: Setting<boolean>;
  /** Whether `/metrics` answers. */
  readonly metrics: Setting<boolean>;
  readonly logFormat: Setting<"text" | "json">;
  /** Workers that may be loaded at once. */
  readonly maxWorkers: Setting<number>;
  /** Milliseconds after which an engine that owes an answer and sends nothing is asked whether it lives. */
  readonly silenceMs: Setting<number>;
  /** Requests that may wait for a worker. */
  readonly queueLimit: Setting<number>;
  /** Bytes that one request may bring. */
  readonly maxBodyBytes: Setting<number>;
  /** Milliseconds after which an idle runner that a command started leaves. */
  readonly idleExitMs: Setting<number>;
  readonly offline: Setting<boolean>;
  readonly logLevel: Setting<LogLevel>;
  /** What callers over TCP must present, and what commands present to `host`; empty: nothing. Never printed. */
  readonly apiKey: Setting<string>;
  /** Browser origins allowed besides those of loopback. */
  readonly origins: Setting<readonly string[]>;
  /** Names that clients may ask for besides this machine's own, as behind a reverse proxy. */
  readonly hosts: Setting<readonly string[]>;
  /** Whether the port speaks TLS with a certificate that is made here. */
  readonly tls: Setting<boolean>;
  /** PEM files of the port's certificate (with its chain) and of its key; empty: none. */
  readonly tlsCert: Setting<string>;
  readonly tlsKey: Setting<string>;
  /** PEM file of the authority that signed the certificate of the runner at `host`; empty: the system's. */
  readonly tlsCa: Setting<string>;
  /** PEM file of certificate authorities trusted besides the system's; empty: none. */
  readonly caBundle: Setting<string>;
  /** Registries (`host[:port]`, `*` for all) over plain http or with any certificate. */
  readonly insecureRegistries: Setting<readonly string[]>;
  /** `[registry=]URL`: base URLs asked before the registry, which is Docker Hub unless named. */
  readonly registryMirrors: Setting<readonly string[]>;
  /** Connections of one pull. */
  readonly connections: Setting<number>;
  /** Bytes a second that pulls may take; 0: no limit. */
  readonly limitRate: Setting<number>;
  /** Beginnings of names, such as `registry.example/nim/`, that are container images like those of `nvcr.io/nim/`. */
  readonly nimPrefixes: Setting<readonly string[]>;
  /** What runs them. */
  readonly containerEngine: Setting<"auto" | "docker" | "podman">;
}

type Env = Readonly<Record<string, string | undefined>>;

/** A request waits in memory with its body; 512 is more than any person makes and small enough to hold. */
const DEFAULT_QUEUE_LIMIT = 512;

/** Memory decides; this keeps a machine with much of it from running more processes than anybody means. */
const DEFAULT_MAX_WORKERS = 16;

/** Several images or minutes of audio as base64. */
const DEFAULT_MAX_BODY_BYTES = 256 * 1024 * 1024;

/** Enough to fill a line on which each connection is throttled; registries refuse clients with many more. */
const DEFAULT_CONNECTIONS = 8;

const UNITS_MS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};
const MAX_DURATION_MS = 10 * 365 * 86_400_000;

interface Definition<T> {
  /** Environment variables, first set wins; the first is Tug's, the others are Docker Model Runner's. */
  readonly env: readonly string[];
  /** Key in config.toml. */
  readonly key: string;
  readonly fallback: T;
  readonly parse: (text: string) => T;
  /** For a value of the file that is no text, number, boolean or list of them. @throws usage */
  readonly accept?: (value: unknown) => T;
}

const DEFINITIONS: { readonly [K in keyof Config]: Definition<Config[K]["value"]> } = {
  host: { env: ["TUG_HOST", "MODEL_RUNNER_HOST"], key: "host", fallback: "", parse: parseBaseUrl },
  port: { env: ["TUG_PORT", "MODEL_RUNNER_PORT"], key: "port", fallback: 12434, parse: parsePort },
  socket: { env: ["TUG_SOCKET", "MODEL_RUNNER_SOCK"], key: "socket", fallback: "", parse: String },
  keepAliveMs: {
    env: ["TUG_KEEP_ALIVE"],
    key: "keep_alive",
    fallback: 300_000,
    parse: parseDuration,
  },
  contextSize: { env: ["TUG_CONTEXT_SIZE"], key: "context_size", fallback: 0, parse: parseCount },
  memoryBudget: { env: ["TUG_MEMORY_BUDGET"], key: "memory_budget", fallback: "", parse: String },
  rpcServers: {
    env: ["TUG_RPC_SERVERS"],
    key: "rpc_servers",
    fallback: [],
    parse: parseRpcServers,
  },
  sandbox: {
    env: ["TUG_SANDBOX"],
    key: "sandbox",
    fallback: "auto",
    parse: oneOf(["auto", "off", "require"]),
  },
  preload: { env: ["TUG_PRELOAD"], key: "preload", fallback: [], parse: parseList },
  models: { env: [], key: "models", fallback: {}, parse: parseNoText, accept: toTables },
  engines: { env: [], key: "engines", fallback: {}, parse: parseNoText, accept: toEngineTables },
  aliases: { env: [], key: "aliases", fallback: {}, parse: parseNoText, accept: toAliases },
  recordRequests: {
    env: ["TUG_RECORD_REQUESTS"],
    key: "record_requests",
    fallback: true,
    parse: parseBoolean,
  },
  metrics: { env: ["TUG_METRICS"], key: "metrics", fallback: true, parse: parseBoolean },
  logFormat: {
    env: ["TUG_LOG_FORMAT"],
    key: "log_format",
    fallback: "text",
    parse: oneOf(["text", "json"]),
  },
  maxWorkers: {
    env: ["TUG_MAX_WORKERS"],
    key: "max_workers",
    fallback: DEFAULT_MAX_WORKERS,
    parse: parsePositive,
  },
  silenceMs: {
    env: ["TUG_SILENCE_TIMEOUT"],
    key: "silence_timeout",
    fallback: 60_000,
    parse: parseDuration,
  },
  queueLimit: {
    env: ["TUG_QUEUE_LIMIT"],
    key: "queue_limit",
    fallback: DEFAULT_QUEUE_LIMIT,
    parse: parsePositive,
  },
  maxBodyBytes: {
    env: ["TUG_MAX_BODY_SIZE"],
    key: "max_body_size",
    fallback: DEFAULT_MAX_BODY_BYTES,
    parse: parseBodySize,
  },
  idleExitMs: {
    env: ["TUG_IDLE_EXIT"],
    key: "idle_exit",
    fallback: 1_800_000,
    parse: parseDuration,
  },
  offline: { env: ["TUG_OFFLINE"], key: "offline", fallback: false, parse: parseBoolean },
  logLevel: { env: ["TUG_LOG", "LOG_LEVEL"], key: "log", fallback: "info", parse: parseLogLevel },
  apiKey: { env: ["TUG_API_KEY"], key: "api_key", fallback: "", parse: parseApiKey },
  origins: {
    env: ["TUG_ORIGINS", "DMR_ORIGINS"],
    key: "origins",
    fallback: [],
    parse: parseOrigins,
  },
  hosts: { env: ["TUG_HOSTS"], key: "hosts", fallback: [], parse: parseHosts },
  tls: {
    env: ["TUG_TLS", "MODEL_RUNNER_TLS_ENABLED"],
    key: "tls",
    fallback: false,
    parse: parseBoolean,
  },
  tlsCert: {
    env: ["TUG_TLS_CERT", "MODEL_RUNNER_TLS_CERT"],
    key: "tls_cert",
    fallback: "",
    parse: String,
  },
  tlsKey: {
    env: ["TUG_TLS_KEY", "MODEL_RUNNER_TLS_KEY"],
    key: "tls_key",
    fallback: "",
    parse: String,
  },
  tlsCa: {
    env: ["TUG_TLS_CA", "MODEL_RUNNER_TLS_CA_CERT"],
    key: "tls_ca",
    fallback: "",
    parse: String,
  },
  caBundle: {
    env: ["TUG_CA_BUNDLE", "SSL_CERT_FILE"],
    key: "ca_bundle",
    fallback: "",
    parse: String,
  },
  insecureRegistries: {
    env: ["TUG_INSECURE_REGISTRIES", "INSECURE_REGISTRY"],
    key: "insecure_registries",
    fallback: [],
    parse: parseInsecure,
  },
  registryMirrors: {
    env: ["TUG_REGISTRY_MIRRORS", "MODEL_RUNNER_REGISTRY_MIRRORS"],
    key: "registry_mirrors",
    fallback: [],
    parse: parseList,
  },
  connections: {
    env: ["TUG_CONNECTIONS"],
    key: "connections",
    fallback: DEFAULT_CONNECTIONS,
    parse: parseConnections,
  },
  limitRate: { env: ["TUG_LIMIT_RATE"], key: "limit_rate", fallback: 0, parse: parseRate },
  nimPrefixes: {
    env: ["TUG_NIM_PREFIXES"],
    key: "nim_prefixes",
    fallback: [],
    parse: parseImagePrefixes,
  },
  containerEngine: {
    env: ["TUG_CONTAINER_ENGINE"],
    key: "container_engine",
    fallback: "auto",
    parse: oneOf(["auto", "docker", "podman"]),
  },
};

/**
 * @throws usage (an environment variable or a key of the file that cannot be understood; the message names it)
 */
export function loadConfig(configFile: string, env: Env = process.env): Config {
  const known = new Set(Object.values(DEFINITIONS).map(({ key }) => key));
  const file = readConfigFile(configFile, known);
  const entries = Object.entries(DEFINITIONS).map(([name, definition]) => [
    name,
    resolveSetting(definition as Definition<unknown>, env, file),
  ]);
  return Object.freeze(Object.fromEntries(entries));
}

/**
 * A flag wins over what the environment and the file say.
 *
 * @param flag as typed, for messages: `--keep-alive`
 * @param text undefined if it was not given
 * @throws usage
 */
export function withFlag(
  config: Config,
  name: keyof Config,
  { flag, text }: { readonly flag: string; readonly text: string | undefined },
): Config {
  if (text === undefined) return config;
  const parse: (text: string) => unknown = DEFINITIONS[name].parse;
  return { ...config, [name]: { value: parseNamed(parse, text, flag), source: flag } };
}

/** `5m`, `1h30m`, `90s`, `250ms`, a bare number of seconds, or a negative number for never (-1). Result in ms. */
export function parseDuration(text: string): number {
  const trimmed = text.trim();
  if (/^-\d/.test(trimmed)) return -1;
  if (/^\d+(\.\d+)?$/.test(trimmed)) return boundedDuration(Number(trimmed) * 1000);
  if (!/^(\d+(\.\d+)?(ms|s|m|h|d))+$/.test(trimmed)) {
    throw new AppError("usage", `\`${text}\` is not a duration`, {
      hint: "Write it as `5m`, `1h30m`, `90s`, or `-1` for never.",
    });
  }
  const parts = [...trimmed.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h|d)/g)];
  return boundedDuration(
    parts.reduce((sum, [, number, unit]) => sum + Number(number) * (UNITS_MS[unit ?? ""] ?? 0), 0),
  );
}

/** @returns whole milliseconds @throws usage (longer than ten years, which no date arithmetic has to bear) */
function boundedDuration(ms: number): number {
  if (ms <= MAX_DURATION_MS) return Math.round(ms);
  throw new AppError("usage", "the duration is longer than ten years", {
    hint: "Use `-1` for never.",
  });
}

/** A base URL without a trailing slash; the scheme defaults to http. */
export function parseBaseUrl(text: string): string {
  const trimmed = text.trim();
  if (trimmed === "") return "";
  const url = URL.parse(/^[a-z]+:\/\//i.test(trimmed) ? trimmed : `http://${trimmed}`);
  if (url === null || !/^https?:$/.test(url.protocol)) {
    throw new AppError("usage", `\`${text}\` is not the address of a runner`, {
      hint: "Write it as `http://HOST:12434`.",
    });
  }
  return url.href.replace(/\/+$/, "");
}

export function parsePort(text: string): number {
  const port = /^\d{1,5}$/.test(text.trim()) ? Number(text) : Number.NaN;
  if (!(port >= 0 && port <= 65_535))
    throw new AppError("usage", `\`${text}\` is not a port`, {
      hint: "Give a number from 0 to 65535.",
    });
  return port;
}

// --- internal ---

function resolveSetting<T>(
  definition: Definition<T>,
  env: Env,
  file: Readonly<Record<string, unknown>>,
): Setting<T> {
  for (const name of definition.env) {
    const text = env[name];
    if (text === undefined || text === "") continue;
    return { value: parseNamed(definition.parse, text, name), source: name };
  }
  const value = file[definition.key];
  if (value === undefined) return { value: definition.fallback, source: "default" };
  const where = `\`${definition.key}\` in config.toml`;
  if (definition.accept !== undefined) {
    return { value: parseNamed(definition.accept, value, where), source: "config.toml" };
  }
  const text = Array.isArray(value) ? value.join(",") : `${value as string | number | boolean}`;
  return { value: parseNamed(definition.parse, text, where), source: "config.toml" };
}

function parseNamed<Raw, T>(parse: (raw: Raw) => T, raw: Raw, where: string): T {
  try {
    return parse(raw);
  } catch (cause) {
    if (!(cause instanceof AppError)) throw cause;
    throw new AppError("usage", `cannot read ${where}: ${cause.message}`, {
      hint: cause.hint,
      cause,
    });
  }
}
