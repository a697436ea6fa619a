/**
 * A small honest engine with switches to misbehave, and the `Backend` that describes it. Switches travel as the
 * runtime flags of a request. Run as a program it is the engine itself.
 */
import { existsSync, rmSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";

import type { Backend, Installation, RunnableModel } from "../../src/runtime/backend.ts";

/** What the engine understands; each is passed as `--name=value` or `--name`. */
const SWITCHES = {
  socket: { type: "string" },
  /** Of 127.0.0.1, instead of a socket. */
  port: { type: "string" },
  /** Listens at once, but is ready (200 rather than 503) only when this file exists. */
  "ready-file": { type: "string" },
  /** Prints a dot to stderr this often while it is not ready. */
  "dots-ms": { type: "string" },
  /** Prints this to stderr first. */
  stderr: { type: "string" },
  /** Exits with this code instead of listening. */
  exit: { type: "string" },
  "ignore-sigterm": { type: "boolean" },
  /** What it says of itself, as JSON, at `/props`. */
  props: { type: "string" },
  /** Memory to hold once it is ready, in MiB. */
  "hold-mib": { type: "string" },
  /** Starts a child that ignores SIGTERM and writes its pid into this file. */
  grandchild: { type: "string" },
} as const;

export function fakeBackend(overrides: Partial<Backend> = {}): Backend {
  return {
    name: "fake",
    formats: ["gguf"],
    modes: ["completion", "embedding"],
    recipe: {},
    readinessPath: "/health",
    args: ({ socket, port, settings }) => ({
      args: [
        port === undefined ? `--socket=${socket}` : `--port=${port}`,
        ...settings.runtimeFlags,
      ],
      env: { FAKE_ENGINE: "yes" },
    }),
    explainExit: ({ exitCode, signal, stderrTail }) => ({
      reason: `fake exited with ${exitCode ?? signal}: ${stderrTail.trim().split("\n").at(-1)}`,
    }),
    ...overrides,
  };
}

export function fakeInstallation(overrides: Partial<Installation> = {}): Installation {
  return {
    backend: "fake",
    version: "1",
    variant: "cpu",
    source: "path",
    directory: import.meta.dir,
    command: [process.execPath, import.meta.path],
    installedAt: "2026-01-01T00:00:00Z",
    ...overrides,
  };
}

/** @param options.onDispose the bundle was given back */
export function fakeModel(
  name: string,
  options: {
    readonly weightBytes?: number;
    readonly path?: string;
    readonly onDispose?: () => void;
  } = {},
): RunnableModel {
  const weightBytes = options.weightBytes ?? 1000;
  return {
    id: `sha256:${Bun.SHA256.hash(name, "hex")}`,
    name,
    format: "gguf",
    weightBytes,
    openBundle: () =>
      Promise.resolve({
        directory: import.meta.dir,
        format: "gguf",
        // A file that is there: whoever reads it is at fault.
        model: options.path ?? import.meta.path,
        weightBytes,
        [Symbol.asyncDispose]: () => Promise.resolve(options.onDispose?.()),
      }),
  };
}

if (import.meta.main) runEngine();

// --- internal ---

function runEngine(): void {
  const { values } = parseArgs({ options: SWITCHES });
  if (values.stderr !== undefined) process.stderr.write(`${values.stderr}\n`);
  if (values["ignore-sigterm"] === true) process.on("SIGTERM", () => undefined);
  if (values.grandchild !== undefined) spawnGrandchild(values.grandchild);
  if (values.exit !== undefined) process.exit(Number(values.exit));
  const readyFile = values["ready-file"];
  const isReady = (): boolean => readyFile === undefined || existsSync(readyFile);
  if (values["dots-ms"] !== undefined) printDots(Number(values["dots-ms"]), isReady);
  const { socket, port } = values;
  if (socket === undefined && port === undefined) throw new Error("--socket is missing");
  const held = Buffer.alloc(Number(values["hold-mib"] ?? 0) * 2 ** 20, 1);
  const props = values.props ?? "{}";
  Bun.serve({
    ...(socket === undefined ? { hostname: "127.0.0.1", port: Number(port) } : { unix: socket }),
    fetch: (request: Request) => answer(request, { isReady: isReady() && held.length >= 0, props }),
  });
  // Bun removes what it bound on a polite exit only; an engine is often killed.
  if (socket !== undefined) process.on("exit", () => rmSync(socket, { force: true }));
}

function spawnGrandchild(pidFile: string): void {
  const child = Bun.spawn(["/bin/sh", "-c", 'trap "" TERM; while :; do sleep 1000; done'], {
    stdio: ["ignore", "inherit", "inherit"],
  });
  writeFileSync(pidFile, String(child.pid));
}

function printDots(intervalMs: number, isReady: () => boolean): void {
  const timer = setInterval(() => {
    if (isReady()) clearInterval(timer);
    else process.stderr.write(".");
  }, intervalMs);
}

interface State {
  readonly isReady: boolean;
  readonly props: string;
}

function answer(request: Request, { isReady, props }: State): Response | Promise<Response> {
  switch (new URL(request.url).pathname) {
    case "/health":
      return new Response(isReady ? "ok" : "loading", { status: isReady ? 200 : 503 });
    case "/props":
      return new Response(props, { headers: { "content-type": "application/json" } });
    case "/slow":
      return Promise.withResolvers<Response>().promise;
    case "/env":
      return Response.json(process.env);
    case "/die-mid-stream":
      return new Response(dyingStream());
    default:
      return new Response("no such path", { status: 404 });
  }
}

function dyingStream(): ReadableStream<string> {
  return new ReadableStream({
    async pull(controller) {
      controller.enqueue("some words");
      // The client must see them before the end.
      await Bun.sleep(20);
      process.stderr.write("out of luck\n");
      process.exit(7);
    },
  });
}
