import { describe, expect, test } from "bun:test";
import { isLinux, isWindows, testIf } from "../helpers/test-if.ts";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { readStartTime } from "../../src/runtime/process-identity.ts";
import {
  engineEnvironment,
  settlesWithin,
  type SpawnOptions,
  spawnEngine,
} from "../../src/runtime/process.ts";
import { fakeInstallation } from "../fakes/backend.ts";
import { eventually } from "../helpers/eventually.ts";
import { tempDir } from "../helpers/temp-dir.ts";

const posix = testIf(!isWindows, "Windows works otherwise");

function options(command: readonly string[], more: Partial<SpawnOptions> = {}): SpawnOptions {
  return { command, env: {}, directory: tmpdir(), onOutput: () => Promise.resolve(), ...more };
}

function shell(script: string, more: Partial<SpawnOptions> = {}): SpawnOptions {
  return options(["/bin/sh", "-c", script], more);
}

/** Processes of the group that are not zombies. */
async function liveMembers(groupId: number): Promise<readonly number[]> {
  const pids = (await readdir("/proc")).map(Number).filter(Number.isInteger);
  const members = await Promise.all(
    pids.map(async (pid) => {
      const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
      const [state, , group] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      return state !== "Z" && Number(group) === groupId ? [pid] : [];
    }),
  );
  return members.flat();
}

describe("spawnEngine", () => {
  posix("process: the exit has the code, no signal and the end of stderr", async () => {
    const engine = spawnEngine(shell("echo out; echo first >&2; echo last >&2; exit 3"));

    const facts = await engine.exited;

    expect(facts).toMatchObject({ exitCode: 3, signal: null, stderrTail: "first\nlast\n" });
    expect(facts.wasMemoryShort ?? false).toBe(false);
  });

  posix(
    "process: only the last 64 KiB of stderr are kept, and a line without an end does not block",
    async () => {
      const engine = spawnEngine(
        shell("head -c 1000000 /dev/zero | tr '\\0' x >&2; printf END >&2"),
      );

      const { exitCode, stderrTail } = await engine.exited;

      expect(exitCode).toBe(0);
      expect(stderrTail).toHaveLength(64 * 1024);
      expect(stderrTail.endsWith("xEND")).toBe(true);
    },
  );

  posix("process: output of both kinds is handed over", async () => {
    const chunks: Uint8Array[] = [];
    const onOutput = (chunk: Uint8Array): Promise<void> => Promise.resolve(void chunks.push(chunk));
    const engine = spawnEngine(shell("echo out; echo err >&2", { onOutput }));

    await engine.exited;

    const text = Buffer.concat(chunks).toString();
    expect(text.split("\n").toSorted()).toEqual(["", "err", "out"]);
  });

  posix("process: arguments arrive as they are", async () => {
    const words = ["two words", "$HOME", "a'b\"c", "日本", "*", ""];
    const engine = spawnEngine(
      options([
        process.execPath,
        "-e",
        "console.error(JSON.stringify(process.argv.slice(1)))",
        "--",
        ...words,
      ]),
    );

    const { stderrTail } = await engine.exited;

    expect(JSON.parse(stderrTail).slice(-words.length)).toEqual(words);
  });

  posix("process: the engine reads nothing from its input", async () => {
    const engine = spawnEngine(shell("cat; echo done >&2"));

    expect(await engine.exited).toMatchObject({ exitCode: 0, stderrTail: "done\n" });
  });

  posix("process: terminate is polite first", async () => {
    const up = Promise.withResolvers<void>();
    const onOutput = (): Promise<void> => Promise.resolve(up.resolve());
    const script = 'trap "echo bye >&2; exit 0" TERM; echo up; while :; do sleep 0.01; done';
    const engine = spawnEngine(shell(script, { onOutput }));
    await up.promise;

    await engine.terminate();

    const { exitCode, stderrTail } = await engine.exited;
    expect(exitCode).toBe(0);
    expect(stderrTail).toEndWith("bye\n");
  });

  posix(
    "process: one that forgot the first SIGTERM is asked again, long before it is killed",
    async () => {
      const up = Promise.withResolvers<void>();
      const onOutput = (): Promise<void> => Promise.resolve(up.resolve());
      const again = 'trap "echo again >&2; exit 0" TERM';
      const script = `trap '${again}' TERM; echo up; while :; do sleep 0.01; done`;
      const engine = spawnEngine(shell(script, { onOutput, graceMs: 60_000 }));
      await up.promise;

      await engine.terminate();

      const { exitCode, stderrTail } = await engine.exited;
      expect(exitCode).toBe(0);
      expect(stderrTail).toEndWith("again\n");
    },
  );

  posix("process: one that ignores SIGTERM is killed after the grace", async () => {
    await using directory = await tempDir();
    const { command } = fakeInstallation();
    const socket = join(directory.path, "s.sock");
    const engine = spawnEngine(
      options([...command, `--socket=${socket}`, "--ignore-sigterm"], { graceMs: 100 }),
    );
    await eventually(async () => (await fetch("http://engine/health", { unix: socket })).ok);

    await Promise.all([engine.terminate(), engine.terminate()]);

    expect(await engine.exited).toMatchObject({ exitCode: null, signal: "SIGKILL" });
  });

  posix("process: what an engine started goes with it", async () => {
    await using directory = await tempDir();
    const pidFile = join(directory.path, "grand child.pid");
    const { command } = fakeInstallation();
    const engine = spawnEngine(options([...command, `--grandchild=${pidFile}`, "--exit=4"]));

    const { exitCode } = await engine.exited;

    const pid = Number(await readFile(pidFile, "utf8"));
    expect(exitCode).toBe(4);
    expect(pid).toBeGreaterThan(1);
    await eventually(() => readStartTime(pid) === undefined);
  });

  posix("process: a program that does not exist is an exit, not an exception", async () => {
    const engine = spawnEngine(options(["/no/such/engine"]));

    expect(await engine.exited).toMatchObject({ exitCode: 127 });
  });

  testIf(isLinux, "it reads /proc")(
    "process: nothing of the group is left, the watcher included",
    async () => {
      const engine = spawnEngine(shell("read -r line; echo up; sleep 1000", {}));
      await eventually(async () => (await liveMembers(engine.pid)).length > 1);

      await engine.terminate();

      await eventually(async () => (await liveMembers(engine.pid)).length === 0);
    },
  );
});

describe("engineEnvironment", () => {
  test("process: engines see neither what steers Bun nor our key", () => {
    const env = {
      PATH: "/bin",
      BUN_OPTIONS: "--x",
      BUN_BE_BUN: "1",
      TUG_API_KEY: "k",
      BUNDLE: "b",
    };

    expect(engineEnvironment(env)).toEqual({ PATH: "/bin", BUNDLE: "b" });
  });
});

describe("readStartTime", () => {
  posix("process identity: a live process has a start time that does not change", () => {
    const first = readStartTime(process.pid);

    expect(first).toBeString();
    expect(readStartTime(process.pid)).toBe(first as string);
  });

  posix("process identity: a dead process has none", async () => {
    const child = Bun.spawn(["/bin/sh", "-c", "exit 0"]);
    await child.exited;

    await eventually(() => readStartTime(child.pid) === undefined);
  });

  testIf(isLinux, "it reads /proc")("process identity: a zombie is not alive", async () => {
    await using directory = await tempDir();
    const pidFile = join(directory.path, "pid");
    // The child ends when its parent has become a program that never waits for it, so it stays a zombie.
    const script = `exec 3<&0; (read -r line <&3) & echo $! > '${pidFile}'; exec sleep 1000`;
    await writeFile(pidFile, "");
    const parent = Bun.spawn(["/bin/sh", "-c", script], { stdin: "pipe" });
    const pid = await eventually(async () => Number(await readFile(pidFile, "utf8")));
    await eventually(async () =>
      (await readFile(`/proc/${parent.pid}/comm`, "utf8")).includes("sleep"),
    );
    await parent.stdin.end();

    await eventually(async () => (await readFile(`/proc/${pid}/stat`, "utf8")).includes(") Z "));

    expect(readStartTime(pid)).toBeUndefined();
    parent.kill("SIGKILL");
  });
});

describe("settlesWithin", () => {
  test("process: it tells whether a promise settles in time", async () => {
    expect(await settlesWithin(Promise.resolve(), 1000)).toBe(true);
    expect(await settlesWithin(Promise.withResolvers().promise, 1)).toBe(false);
  });
});
