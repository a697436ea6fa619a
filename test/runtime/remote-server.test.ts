import { describe, expect, test } from "bun:test";
import { chmod, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { llamacpp } from "../../backends/llamacpp/index.ts";
import { type RemoteServerOptions, serveRemotely } from "../../src/runtime/remote-server.ts";
import { NO_SANDBOX } from "../../src/runtime/sandbox/index.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { isWindows, testIf } from "../helpers/test-if.ts";
import { rejection } from "../server/fake-deps.ts";

/** Listens, closes what connects, and ends after so many connections. */
const SERVER = `
const port = Number(process.argv[process.argv.indexOf("--port") + 1]);
let left = Number(process.env.CONNECTIONS);
console.error("a server says: listening");
Bun.listen({ hostname: "127.0.0.1", port, socket: { data(socket) {
  socket.end();
  if (--left === 0) setTimeout(() => process.exit(3), 20);
} } });
`;

interface Bench extends AsyncDisposable {
  readonly options: RemoteServerOptions;
  readonly stop: AbortController;
  readonly lines: string[];
}

/** @param script of the server; undefined: none came with the engine */
async function bench(
  script: string | undefined,
  overrides: Partial<RemoteServerOptions> = {},
): Promise<Bench> {
  const directory = await tempDir();
  if (script !== undefined) {
    const file = join(directory.path, "server.ts");
    const program = join(directory.path, "rpc-server");
    await writeFile(file, script);
    await writeFile(program, `#!/bin/sh\nexec "${process.execPath}" "${file}" "$@"\n`);
    await chmod(program, 0o755);
  }
  const stop = new AbortController();
  const lines: string[] = [];
  const options: RemoteServerOptions = {
    backend: llamacpp,
    installation: {
      backend: "llama.cpp",
      version: "1",
      variant: "cpu",
      source: "apt",
      directory: directory.path,
      command: [join(directory.path, "llama-server")],
      installedAt: "2026-01-01T00:00:00Z",
    },
    sandbox: NO_SANDBOX,
    host: "127.0.0.1",
    port: 0,
    devices: [],
    cacheDirectory: undefined,
    directory: directory.path,
    signal: stop.signal,
    onLine: (line) => void lines.push(line),
    onReady: () => undefined,
    ...overrides,
  };
  return { options, stop, lines, [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose]() };
}

const unixTest = testIf(!isWindows, "it needs a shell");

describe("a server for other machines", () => {
  test("an engine that came without one is named, with what to do", async () => {
    await using it = await bench(undefined);

    const error = String(await rejection(serveRemotely(it.options)));
    expect(error).toContain("llama.cpp 1 (from apt) came without an RPC server");
  });

  unixTest("is ended by who asks it to while it is being started", async () => {
    await using it = await bench(`process.env.CONNECTIONS = "99";${SERVER}`);
    const sandbox = {
      ...NO_SANDBOX,
      wrap: (command: readonly string[]) => {
        it.stop.abort();
        return command;
      },
    };

    await serveRemotely({ ...it.options, sandbox });

    expect(it.stop.signal.aborted).toBe(true);
  });

  unixTest(
    "serves on a port that is free until it is asked to end, and says what it says",
    async () => {
      await using it = await bench(`process.env.CONNECTIONS = "99";${SERVER}`);
      const ready = Promise.withResolvers<number>();

      const serving = serveRemotely({ ...it.options, onReady: ready.resolve });
      const port = await Promise.race([ready.promise, serving]);
      expect(port).toBeGreaterThan(0);
      expect(it.lines).toContain("a server says: listening");
      it.stop.abort();
      await serving;
    },
  );

  unixTest("one that ends soon after its start is not started again", async () => {
    await using it = await bench("console.error('Failed to create server socket')");

    expect(String(await rejection(serveRemotely(it.options)))).toContain(
      "cannot serve other machines: it cannot listen there",
    );
  });

  unixTest("one that has served is started again, and is announced once", async () => {
    await using it = await bench(`process.env.CONNECTIONS = "1";${SERVER}`, { settledMs: 0 });
    let announced = 0;
    const again = Promise.withResolvers<void>();
    const onLine = (): void => {
      it.lines.push("started");
      if (it.lines.length === 2) again.resolve();
    };

    const serving = serveRemotely({ ...it.options, onLine, onReady: () => (announced += 1) });
    await Promise.race([again.promise, serving]);
    it.stop.abort();
    await serving;

    expect(announced).toBe(1);
  });

  unixTest("an abort before it listens ends it", async () => {
    await using it = await bench("await Bun.sleep(60_000)");

    const serving = serveRemotely(it.options);
    it.stop.abort();
    await serving;
    expect(it.lines).toEqual([]);
  });
});
