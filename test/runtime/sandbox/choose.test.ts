import { describe, expect, test } from "bun:test";
import { chmod, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { AppError } from "../../../src/errors.ts";
import {
  chooseSandbox,
  findSandbox,
  rememberSandbox,
  type SandboxOptions,
} from "../../../src/runtime/sandbox/index.ts";
import { createLimits } from "../../../src/runtime/sandbox/limits.ts";
import { eventually } from "../../helpers/eventually.ts";
import { isAlive } from "../../helpers/processes.ts";
import { tempDir } from "../../helpers/temp-dir.ts";
import { isLinux, isWindows, testIf } from "../../helpers/test-if.ts";

const posix = testIf(!isWindows, "programs here are shell scripts");
const VIEW = { readOnly: [], writable: [], devices: [] };

/** A `PATH` with programs in place of the real ones, each a script; a call adds a line to `calls`. */
async function programs(directory: string, scripts: Readonly<Record<string, string>>) {
  const bin = join(directory, "bin");
  await mkdir(bin);
  const calls = join(directory, "calls");
  for (const [name, script] of Object.entries(scripts)) {
    const file = join(bin, name);
    await writeFile(file, `#!/bin/sh\necho ${name} >>'${calls}'\n${script}\n`);
    await chmod(file, 0o755);
  }
  const count = async (): Promise<number> => {
    const text = await Bun.file(calls)
      .text()
      .catch(() => "");
    return text.split("\n").length - 1;
  };
  return { env: { PATH: bin }, bin, count };
}

function options(mode: SandboxOptions["mode"], more: Partial<SandboxOptions> = {}) {
  const warnings: string[] = [];
  const log = { warn: (message: string) => void warnings.push(message) };
  return { mode, platform: "linux" as const, env: {}, log, warnings, ...more };
}

async function failure(promise: Promise<unknown>): Promise<AppError> {
  const thrown = await promise.then(
    () => undefined,
    (error: unknown) => error,
  );
  expect(thrown).toBeInstanceOf(AppError);
  return thrown as AppError;
}

describe("choosing a sandbox", () => {
  test("off is nothing at all, and says nothing", async () => {
    const asked = options("off");

    const sandbox = await chooseSandbox(asked);

    expect(sandbox.name).toBe("none");
    expect(sandbox.wrap(["/e", "-x"], VIEW)).toEqual(["/e", "-x"]);
    expect(asked.warnings).toEqual([]);
  });

  test("auto without bubblewrap is limits, and one warning that says why and what to do", async () => {
    const asked = options("auto", { env: { PATH: "/nowhere" } });

    const sandbox = await chooseSandbox(asked);

    expect(sandbox.name).toBe("limits");
    expect(asked.warnings).toHaveLength(1);
    expect(asked.warnings[0]).toContain("bubblewrap is not installed");
    expect(asked.warnings[0]).toContain("apt install bubblewrap");
  });

  test("is described for a person who asks", async () => {
    const missing = rememberSandbox(options("require", { env: { PATH: "/nowhere" } }));

    const described = await missing.describe();

    expect(described).toMatchObject({ mode: "require", name: "limits" });
    expect(described.problem).toStartWith("bubblewrap is not installed. Install it");
    expect(await rememberSandbox(options("off")).describe()).toEqual({
      mode: "off",
      name: "none",
      problem: null,
    });
  });

  test("require without bubblewrap refuses, and says what to install", async () => {
    const asked = options("require", { env: { PATH: "/nowhere" } });

    const error = await failure(chooseSandbox(asked));

    expect(error).toMatchObject({ code: "sandbox_unavailable", exitCode: 1, status: 503 });
    expect(error.message).toBe("cannot start engines in a sandbox: bubblewrap is not installed");
    expect(error.hint).toContain("apt install bubblewrap");
    expect(asked.warnings).toEqual([]);
  });

  posix(
    "one that does not work is not used, and its complaint is shown, bounded and clean",
    async () => {
      await using directory = await tempDir();
      const complaint = String.raw`printf 'bwrap: No permissions \033[31mto create %0500d\n' 1 >&2; exit 1`;
      const { env } = await programs(directory.path, { bwrap: complaint });
      const asked = options("auto", { env });

      const sandbox = await chooseSandbox(asked);
      const error = await failure(chooseSandbox(options("require", { env })));

      expect(sandbox.name).toBe("limits");
      expect(asked.warnings[0]).toContain("No permissions");
      expect(asked.warnings[0]).toContain("user namespaces");
      expect(error.message).not.toMatch(/\p{Cc}/u);
      expect(error.message.length).toBeLessThan(320);
      expect(error.hint).toContain("unprivileged_userns_clone");
    },
  );

  posix("one that hangs is given up, with what it started", async () => {
    await using directory = await tempDir();
    const { env, bin } = await programs(directory.path, {
      bwrap: `/bin/sleep 1000 & echo $! >'${directory.path}/pid'; wait`,
    });

    const { sandbox, problem } = await findSandbox(options("auto", { env, trialMs: 200 }));

    expect(sandbox.name).toBe("limits");
    expect(problem?.reason).toContain("no answer within 0.2 s");
    expect(problem?.hint).toContain(join(bin, "bwrap"));
    const child = Number(await Bun.file(join(directory.path, "pid")).text());
    await eventually(async () => !(await isAlive(child)));
  });

  posix("one whose child keeps its output open does not hold the first load", async () => {
    await using directory = await tempDir();
    const script = "/bin/sleep 3 & exit 7";
    const { env } = await programs(directory.path, { bwrap: script });
    const startedMs = performance.now();

    const { problem } = await findSandbox(options("auto", { env }));

    expect(problem?.reason).toContain("exit code 7");
    expect(performance.now() - startedMs).toBeLessThan(2500);
  });

  posix("an aborted trial ends at once", async () => {
    await using directory = await tempDir();
    const { env } = await programs(directory.path, { bwrap: "exec /bin/sleep 1000" });
    const stop = new AbortController();
    const reason = new AppError("cancelled", "cancelled");

    const pending = failure(findSandbox(options("auto", { env, signal: stop.signal })));
    stop.abort(reason);

    expect(await pending).toBe(reason);
    expect(await failure(findSandbox(options("auto", { env, signal: stop.signal })))).toBe(reason);
  });

  posix("it is tried once, when it is first asked for, by all who ask at once", async () => {
    await using directory = await tempDir();
    const { env, count } = await programs(directory.path, { bwrap: "exit 0" });
    const remembered = rememberSandbox(options("auto", { env }));
    const before = await count();

    const all = await Promise.all([1, 2, 3].map(() => remembered.choose()));
    const [again, { name }] = [await remembered.choose(), await remembered.describe()];

    expect([again.name, name]).toEqual(["bubblewrap", "bubblewrap"]);
    expect(before).toBe(0);
    expect(new Set(all).size).toBe(1);
    expect(all[0]?.name).toBe("bubblewrap");
    expect(await count()).toBe(1);
  });

  posix("a refusal is not remembered: it may be installed meanwhile", async () => {
    await using directory = await tempDir();
    const { env, bin } = await programs(directory.path, {});
    const remembered = rememberSandbox(options("require", { env }));

    const error = await failure(remembered.choose());
    await writeFile(join(bin, "bwrap"), "#!/bin/sh\nexit 0\n", { mode: 0o755 });

    expect(error.code).toBe("sandbox_unavailable");
    expect((await remembered.choose()).name).toBe("bubblewrap");
  });

  posix("a problem is warned of once, and not remembered either", async () => {
    await using directory = await tempDir();
    const { env, bin } = await programs(directory.path, {});
    const asked = options("auto", { env });
    const remembered = rememberSandbox(asked);

    const before = [await remembered.choose(), await remembered.choose()];
    const described = await remembered.describe();
    await writeFile(join(bin, "bwrap"), "#!/bin/sh\nexit 0\n", { mode: 0o755 });

    expect(before.map(({ name }) => name)).toEqual(["limits", "limits"]);
    expect(described).toMatchObject({ mode: "auto", name: "limits" });
    expect(asked.warnings).toHaveLength(1);
    expect((await remembered.choose()).name).toBe("bubblewrap");
    expect((await remembered.describe()).problem).toBeNull();
  });

  posix("one that floods its output does not fill the memory", async () => {
    await using directory = await tempDir();
    const flood = "while :; do printf '%01000d' 1; done >&2";
    const { env } = await programs(directory.path, { bwrap: flood });

    const { problem } = await findSandbox(options("auto", { env, trialMs: 200 }));

    expect(problem?.reason).toContain("no answer");
  });

  posix("what is not about permissions has a hint of its own", async () => {
    await using directory = await tempDir();
    const { env, bin } = await programs(directory.path, { bwrap: "kill -SEGV $$" });

    const { problem } = await findSandbox(options("auto", { env }));

    expect(problem?.reason).toContain("SIGSEGV");
    expect(problem?.hint).toStartWith(`See what \`${join(bin, "bwrap")} `);
  });

  posix("a program in a place that would be taken for a variable is not used", async () => {
    await using directory = await tempDir();
    const place = join(directory.path, "a=b");
    await mkdir(place);
    const { env } = await programs(place, { bwrap: "exit 0" });

    expect((await findSandbox(options("auto", { env }))).sandbox.name).toBe("limits");
  });

  test.each(["win32", "freebsd"] as const)("%s has none, and says so", async (platform) => {
    const asked = options("auto", { platform });

    const { name } = await chooseSandbox(asked);
    const error = await failure(chooseSandbox(options("require", { platform })));

    expect(name).toBe(platform === "win32" ? "none" : "limits");
    expect(asked.warnings).toHaveLength(1);
    expect(error.code).toBe("sandbox_unavailable");
  });

  posix("macOS has one if its program works", async () => {
    await using directory = await tempDir();
    const { bin, env } = await programs(directory.path, { good: "exit 0", bad: "exit 65" });
    const mac = (name: string): Promise<{ sandbox: { name: string } }> =>
      findSandbox(options("auto", { platform: "darwin", env, sandboxExec: join(bin, name) }));

    expect((await mac("good")).sandbox.name).toBe("seatbelt");
    expect((await mac("bad")).sandbox.name).toBe("limits");
    expect((await mac("missing")).sandbox.name).toBe("limits");
  });
});

function run(argv: readonly string[]): string {
  return Bun.spawnSync([...argv]).stdout.toString();
}

describe("limits without isolation", () => {
  posix("hold, and leave the command as it is", () => {
    const odd = ["a b", "'", '"', "$(x)", "", "-n"];
    const command = ["/usr/bin/printf", "%s|", ...odd];

    expect(run(createLimits(undefined).wrap(command, VIEW))).toBe(
      odd.map((it) => `${it}|`).join(""),
    );
    expect(run(createLimits(undefined).wrap(["/bin/sh", "-c", "ulimit -c"], VIEW)).trim()).toBe(
      "0",
    );
  });

  testIf(isLinux && Bun.which("setpriv") !== null, "no setpriv here")(
    "no program gives privileges",
    () => {
      const limits = createLimits(Bun.which("setpriv") ?? "");

      expect(run(limits.wrap(["/bin/cat", "/proc/self/status"], VIEW))).toMatch(
        /^NoNewPrivs:\t1$/m,
      );
    },
  );
});
