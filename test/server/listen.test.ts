import { describe, expect, test } from "bun:test";
import { isLinux, isWindows, testIf } from "../helpers/test-if.ts";
import { existsSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createApp } from "../../src/server/app.ts";
import type { Bindings } from "../../src/server/deps.ts";
import { listen } from "../../src/server/listen.ts";
import { listeningInodes } from "../../src/server/port-holder.ts";
import { eventually } from "../helpers/eventually.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { fakeDeps, rejection } from "./fake-deps.ts";

const showBindings = {
  fetch: (_: Request, bindings: Bindings) => Response.json(bindings),
};

function get(socket: string, path = "/"): Promise<Response> {
  return fetch(`http://localhost${path}`, { unix: socket, keepalive: false });
}

describe("listen", () => {
  test("listen: callers on the unix socket are trusted, those on TCP are not", async () => {
    await using directory = await tempDir();
    const socket = join(directory.path, "runner.sock");

    const listening = await listen({ app: showBindings, hostname: "127.0.0.1", port: 0, socket });
    const overSocket = await (await get(socket)).json();
    const overTcp = await (await fetch(listening.endpoint ?? "")).json();
    await listening.stop();

    expect(overSocket).toEqual({ trusted: true });
    expect(overTcp).toEqual({ trusted: false, hostname: "127.0.0.1" });
  });

  testIf(!isWindows, "Windows works otherwise")(
    "listen: the socket is private, replaces a stale one, and leaves nothing behind",
    async () => {
      await using directory = await tempDir();
      const socket = join(directory.path, "runner.sock");
      writeFileSync(socket, "stale");

      const listening = await listen({ app: showBindings, hostname: "127.0.0.1", port: 0, socket });
      const mode = statSync(socket).mode & 0o777;
      const names = readdirSync(directory.path);
      await listening.stop();

      expect(mode).toBe(0o600);
      expect(names).toEqual(["runner.sock"]);
      expect(readdirSync(directory.path)).toEqual([]);
    },
  );

  test("listen: stopping leaves the socket of a successor alone", async () => {
    await using directory = await tempDir();
    const socket = join(directory.path, "runner.sock");

    const first = await listen({ app: showBindings, hostname: "127.0.0.1", port: 0, socket });
    const second = await listen({ app: showBindings, hostname: "127.0.0.1", port: 0, socket });
    await first.stop();
    const answer = await get(socket);
    await second.stop();

    expect(answer.status).toBe(200);
    expect(existsSync(socket)).toBe(false);
  });

  test("listen: a runner that has the port is named, and the socket works all the same", async () => {
    await using directory = await tempDir();
    const socket = join(directory.path, "runner.sock");
    const runner = {
      info: () =>
        Promise.resolve({
          version: "1",
          pid: 4711,
          endpoint: null,
          endpoint_problem: null,
          socket: null,
          started_at: "2026-01-01T00:00:00Z",
          idle_exit_ms: null,
          engines: [],
        }),
      isStopping: false,
      stop: () => undefined,
    };
    const app = createApp(fakeDeps({ runner }));
    const holder = await listen({ app, hostname: "127.0.0.1", port: 0 });
    const port = Number(new URL(holder.endpoint ?? "").port);

    const listening = await listen({ app: showBindings, hostname: "127.0.0.1", port, socket });
    const answer = await get(socket);
    const problem = await listening.endpointProblem;
    await Promise.all([listening.stop(), holder.stop()]);

    expect(listening.endpoint).toBeNull();
    expect(problem).toBe(
      `port ${port} is taken by another tug runner (process 4711); each TUG_HOME and each user has one`,
    );
    expect(answer.status).toBe(200);
  });

  testIf(isLinux, "it reads /proc")(
    "listen: another program that has the port is named",
    async () => {
      await using directory = await tempDir();
      const blocker = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response("x") });
      const { port } = blocker;

      const listening = await listen({
        app: showBindings,
        hostname: "127.0.0.1",
        port: port ?? 0,
        socket: join(directory.path, "runner.sock"),
      });
      const problem = await listening.endpointProblem;
      await Promise.all([listening.stop(), blocker.stop(true)]);

      expect(problem).toStartWith(`port ${port} is taken by \``);
      expect(problem).toEndWith(`(process ${process.pid})`);
    },
  );

  test("listen: with neither port nor socket there is nothing to run for", async () => {
    const blocker = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response("x") });

    const outcome = listen({ app: showBindings, hostname: "127.0.0.1", port: blocker.port ?? 0 });

    expect(await rejection(outcome)).toMatchObject({ code: "conflict" });
    await blocker.stop(true);
  });

  test("listen: a socket that cannot be made is an error that names it", async () => {
    const socket = "/nowhere/at/all/runner.sock";

    const outcome = listen({ app: showBindings, hostname: "127.0.0.1", port: 0, socket });

    expect(await rejection(outcome)).toMatchObject({ code: "conflict" });
  });

  test("listen: stopping lets an answer finish, and takes no new connection", async () => {
    await using directory = await tempDir();
    const socket = join(directory.path, "runner.sock");
    const goOn = Promise.withResolvers<void>();
    const app = {
      fetch: async () => {
        await goOn.promise;
        return new Response("finished");
      },
    };
    const listening = await listen({ app, hostname: "127.0.0.1", port: 0, socket });

    const answer = get(socket);
    await eventually(() => listening.pendingRequests() === 1);
    const stopped = listening.stop();
    const refused = await get(socket).catch((error: Error) => error);
    goOn.resolve();

    expect(refused).toBeInstanceOf(Error);
    expect(await (await answer).text()).toBe("finished");
    await stopped;
    expect(listening.pendingRequests()).toBe(0);
  });

  test("listen: the IPv6 loopback makes a URL with brackets", async () => {
    const listening = await listen({ app: showBindings, hostname: "::1", port: 0 }).catch(
      () => null,
    );
    await listening?.stop();

    // A machine without IPv6 has nothing to listen on.
    expect(listening?.endpoint ?? "http://[::1]:1").toMatch(/^http:\/\/\[::1\]:\d+$/);
  });
});

describe("listeningInodes", () => {
  const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:3092 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11111 1 0 100 0 0 10 0
   1: 0100007F:3093 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 22222 1 0 100 0 0 10 0
   2: 0100007F:3092 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 33333 1 0 100 0 0 10 0
`;

  test("listeningInodes: only sockets that listen on the port", () => {
    expect(listeningInodes(table, 0x3092)).toEqual(["11111"]);
    expect(listeningInodes(table, 1)).toEqual([]);
    expect(listeningInodes("", 1)).toEqual([]);
  });
});
