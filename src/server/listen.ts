/** Sockets: the runner's own unix socket, whose callers are trusted, and TCP. */
import { chmodSync, renameSync, rmSync, statSync } from "node:fs";
import { AppError, errnoOf } from "../errors.ts";
import { log } from "../log.ts";
import { garbage } from "./garbage.ts";
import type { Bindings } from "./deps.ts";
import { describePortHolder } from "./port-holder.ts";
import type { TlsFiles } from "./tls/pair.ts";

export interface ListenOptions {
  readonly app: { fetch(request: Request, bindings: Bindings): Response | Promise<Response> };
  /** An address or name of this machine. */
  readonly hostname: string;
  /** 0 picks a free one. */
  readonly port: number;
  /** Absolute path; in a directory that only its owner can enter. */
  readonly socket?: string | undefined;
  /** The port then speaks TLS (1.2 or later), and HTTP/2 with who offers it. The socket stays plain. */
  readonly tls?: TlsFiles | undefined;
}

export interface Listening {
  /** Base URL on TCP; null if the port could not be had. */
  readonly endpoint: string | null;
  /** Why there is no endpoint. Finding out who has the port may take a second, for which nobody else has to wait. */
  readonly endpointProblem: Promise<string | null>;
  readonly socket: string | null;
  /** File of the certificate authority that clients of the endpoint have to trust; null: none of ours. */
  readonly authority: string | null;
  /** Requests in flight, streams included. */
  pendingRequests(): number;
  /** Takes no new connections, waits briefly for answers that are being given, then cuts the rest. */
  stop(): Promise<void>;
}

/**
 * A model archive is uploaded as one body, read as a stream: routes that hold a body in memory have a bound of their
 * own. Bytes.
 */
const MAX_UPLOAD_BYTES = 2 ** 53 - 1;
/** Whoever stops the listener has let the work finish before; this is for the last bytes on their way. */
const STOP_GRACE_MS = 2000;

type Server = Bun.Server<undefined>;
/** A model may think for minutes before its first token. Bun heeds it on a unix socket too, its types do not know. */
const NEVER_IDLE: object = { idleTimeout: 0 };

/** @throws conflict (the socket cannot be had, or neither socket nor port) */
export async function listen(options: ListenOptions): Promise<Listening> {
  const own =
    options.socket === undefined ? undefined : listenOnSocket(options.app, options.socket);
  const tcp = tryTcp(options);
  if (own === undefined && tcp.server === undefined) {
    throw new AppError("conflict", `cannot listen: ${await tcp.problem}`, {
      hint: "Give another port with `--port`.",
    });
  }
  const servers = [own?.server, tcp.server].filter((server) => server !== undefined);
  return {
    endpoint: tcp.server === undefined ? null : endpointOf(options, tcp.server),
    endpointProblem: tcp.problem,
    socket: options.socket ?? null,
    authority: options.tls?.authority ?? null,
    pendingRequests: () => servers.reduce((sum, server) => sum + server.pendingRequests, 0),
    async stop() {
      own?.unlink();
      await Promise.all(servers.map((server) => stopServer(server)));
    },
  };
}

// --- internal ---

function serveOptions(app: ListenOptions["app"], bindings: Bindings) {
  return {
    fetch: (request: Request) => {
      garbage.countRequest();
      return app.fetch(request, bindings);
    },
    ...NEVER_IDLE,
    maxRequestBodySize: MAX_UPLOAD_BYTES,
    development: false,
    error(error: Error) {
      log.error(`server: request failed reason=${error.message}`);
      return new Response(null, { status: 500 });
    },
  } as const;
}

interface OwnSocket {
  readonly server: Server;
  /** Removes the socket's name, unless another runner has taken it. */
  unlink(): void;
}

/** Bound under a temporary name and renamed into place: a stale socket is replaced, and nobody meets half of one. */
function listenOnSocket(app: ListenOptions["app"], path: string): OwnSocket {
  // Windows keeps the name of an open socket; there the stale file has to go first.
  const canRename = process.platform !== "win32";
  const bound = canRename ? `${path}.${process.pid}` : path;
  rmSync(bound, { force: true });
  const umask = process.umask(0o077);
  try {
    const server = Bun.serve({ ...serveOptions(app, { trusted: true }), unix: bound });
    if (!canRename) return { server, unlink: () => rmSync(path, { force: true }) };
    chmodSync(bound, 0o600);
    const { ino } = statSync(bound);
    renameSync(bound, path);
    return { server, unlink: () => unlinkOwn(path, ino) };
  } catch (cause) {
    const reason = (cause as Error).message;
    throw new AppError("conflict", `cannot listen on \`${path}\`: ${reason}`, {
      hint: "Set TUG_SOCKET to a path in a directory of your own.",
      cause,
    });
  } finally {
    process.umask(umask);
  }
}

function unlinkOwn(path: string, ino: number): void {
  if (statSync(path, { throwIfNoEntry: false })?.ino === ino) rmSync(path, { force: true });
}

function tryTcp(options: ListenOptions): { server?: Server; problem: Promise<string | null> } {
  const { app, hostname, port, tls } = options;
  try {
    const server = Bun.serve({
      ...serveOptions(app, { trusted: false, hostname }),
      hostname: addressOf(hostname),
      port,
      // Otherwise, with `development: false`, two runners would share the port and each get half the requests.
      reusePort: false,
      ...(tls === undefined ? {} : tlsOptions(tls)),
    });
    return { server, problem: Promise.resolve(null) };
  } catch (error) {
    return { problem: describeProblem(error, options) };
  }
}

async function describeProblem(error: unknown, { hostname, port }: ListenOptions): Promise<string> {
  if (errnoOf(error) !== "EADDRINUSE") {
    return `cannot listen on ${hostname}:${port}: ${(error as Error).message}`;
  }
  try {
    return `port ${port} is taken by ${await describePortHolder({ hostname, port })}`;
  } catch {
    return `port ${port} is taken`;
  }
}

/** Bun's own least version is TLS 1.2. */
function tlsOptions({ cert, key }: TlsFiles) {
  return { tls: { cert, key }, http2: true } as const;
}

function endpointOf({ hostname, tls }: ListenOptions, { port }: Server): string {
  const address = addressOf(hostname);
  const scheme = tls === undefined ? "http" : "https";
  return `${scheme}://${address.includes(":") ? `[${address}]` : address}:${port}`;
}

/** `localhost` is two addresses: where the first is taken Bun would quietly be content with the second. */
function addressOf(hostname: string): string {
  return hostname.toLowerCase() === "localhost" ? "127.0.0.1" : hostname.replaceAll(/[[\]]/g, "");
}

async function stopServer(server: Server): Promise<void> {
  const { promise: late, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, STOP_GRACE_MS);
  await Promise.race([server.stop(false), late]);
  clearTimeout(timer);
  await server.stop(true);
}
