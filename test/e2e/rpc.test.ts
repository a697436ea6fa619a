import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { WorkerStatus } from "../../src/api/engines.ts";
import type { ExplainResult } from "../../src/api/settings.ts";
import { tugBinary } from "../helpers/binary.ts";
import { eventually } from "../helpers/eventually.ts";
import { freePort } from "../helpers/free-port.ts";
import { LONG_REQUEST, PEBBLE, QUESTION } from "../helpers/pebble.ts";
import { isAlive, processesNaming } from "../helpers/processes.ts";
import { type CliResult, cleanEnvironment } from "../helpers/run-cli.ts";
import { isLinux, describeIf } from "../helpers/test-if.ts";
import { type TugHome, tugHome } from "../helpers/tug-home.ts";

setDefaultTimeout(60_000);

/** `tug rpc serve`, once it serves. */
interface Lender extends AsyncDisposable {
  readonly address: string;
  /** What it prints for the other machine. */
  readonly setting: string;
  interrupt(): void;
  readonly ended: Promise<Pick<CliResult, "exitCode" | "stderr">>;
}

async function lend(home: TugHome, args: readonly string[] = []): Promise<Lender> {
  const port = await freePort();
  const child = Bun.spawn([await tugBinary(), "rpc", "serve", "--port", String(port), ...args], {
    env: { ...cleanEnvironment(), ...home.env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const stderr = child.stderr.text();
  const reader = child.stdout.getReader();
  const first = await reader.read();
  if (first.value === undefined) throw new Error(`it does not serve: ${await stderr}`);
  reader.releaseLock();
  return {
    address: `127.0.0.1:${port}`,
    setting: new TextDecoder().decode(first.value),
    interrupt: () => child.kill("SIGINT"),
    ended: child.exited.then(async (exitCode) => ({ exitCode, stderr: await stderr })),
    async [Symbol.asyncDispose]() {
      child.kill("SIGTERM");
      await child.exited;
    },
  };
}

async function configure(home: TugHome, text: string): Promise<void> {
  await writeFile(join(home.path, "config.toml"), text);
  await home.tug(["stop-runner", "--force"]);
}

async function workers(home: TugHome): Promise<readonly WorkerStatus[]> {
  return JSON.parse((await home.tug(["ps", "--json"])).stdout) as WorkerStatus[];
}

/** The servers themselves, not what guards and confines them. */
async function serversOf(home: TugHome): Promise<readonly number[]> {
  const all = await processesNaming(home.path);
  const own = all.filter(
    ({ argv }) =>
      !/(^|\/)(sh|dash|bash|env|setpriv|bwrap)$/.test(argv[0] ?? "") &&
      argv.some((word) => word.endsWith("/ggml-rpc-server")),
  );
  return own.map(({ pid }) => pid);
}

describeIf(isLinux, "it needs Debian's server")("a model over several machines", () => {
  let home: TugHome;
  beforeAll(async () => {
    home = await tugHome({ engine: true });
  }, 240_000);
  afterAll(() => home?.[Symbol.asyncDispose]());

  test("runs on a server that its configuration names, and `ps` and `explain` say so", async () => {
    await using lender = await lend(home);
    expect(lender.setting).toBe(`rpc_servers = ["${lender.address}"]\n`);
    await configure(home, lender.setting);

    const answer = await home.tug(["run", "pebble", QUESTION]);

    expect(answer.stdout).toContain("Paris");
    const device = `rpc:${lender.address}`;
    const [worker] = await workers(home);
    expect(worker).toMatchObject({ devices: [device, "ram"], shares_network: true });
    const explained = JSON.parse(
      (await home.tug(["explain", "pebble", "--json"])).stdout,
    ) as ExplainResult;
    expect(explained.command?.join(" ")).toContain(`--rpc ${lender.address}`);
    expect(explained).toMatchObject({ shares_network: true, mismatches: [] });
    expect(explained.settings).toContainEqual({
      name: "rpc_servers",
      value: lender.address,
      source: "config.toml",
    });
  });

  test("another model gets the server when the first one has left", async () => {
    await using lender = await lend(home);
    await configure(home, lender.setting);
    await home.tug(["package", "--gguf", PEBBLE, "--context-size", "1024", "me/other"]);

    for (const model of ["pebble", "me/other", "pebble"]) {
      const answer = await home.tug(["run", model, QUESTION]);
      expect(answer.stdout).toContain("Paris");
      expect(await workers(home)).toHaveLength(1);
    }
  });

  test("two servers share one model", async () => {
    await using one = await lend(home);
    await using other = await lend(home);
    await configure(home, `rpc_servers = ["${one.address}", "${other.address}"]\n`);

    expect((await home.tug(["run", "pebble", QUESTION])).stdout).toContain("Paris");
    const [worker] = await workers(home);
    expect(worker?.devices).toEqual(
      expect.arrayContaining([`rpc:${one.address}`, `rpc:${other.address}`]),
    );
  });

  test("a server that is killed in the middle of an answer is named, and the next one waits for none", async () => {
    await using lender = await lend(home);
    await configure(home, lender.setting);
    await home.tug(["run", "pebble", QUESTION]);
    const answer = await fetch(`${home.url}/v1/chat/completions`, {
      method: "POST",
      body: JSON.stringify({
        model: "pebble",
        stream: true,
        messages: [{ role: "user", content: LONG_REQUEST }],
      }),
    });
    const reader = answer.body?.pipeThrough(new TextDecoderStream()).getReader();
    let text = (await reader?.read())?.value ?? "";

    for (const pid of await serversOf(home)) process.kill(pid, "SIGKILL");
    for (let next = await reader?.read(); next?.done === false; next = await reader?.read()) {
      text += next.value;
    }

    expect(text).toContain(`its RPC server ${lender.address} went away in the middle of its work`);
    expect(await lender.ended).toMatchObject({
      exitCode: 1,
      stderr: expect.stringContaining("cannot serve other machines: it was ended by SIGKILL"),
    });
    const after = await home.tug(["run", "pebble", QUESTION]);
    expect(after).toMatchObject({ exitCode: 1, stdout: "" });
    expect(after.stderr).toContain(`the RPC server ${lender.address} does not answer`);
    expect(after.stderr).toContain("hint: See whether `tug rpc serve` runs there");
  });

  test("a port where nobody listens, and a server that is with somebody else, fail the load with a sentence", async () => {
    using silent = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    const gone = `127.0.0.1:${await freePort()}`;
    for (const [address, why] of [
      [gone, "does not answer"],
      [`127.0.0.1:${silent.port}`, "is serving somebody else"],
    ]) {
      await configure(home, `rpc_servers = ["${address}"]\n`);
      const result = await home.tug(["run", "pebble", "hi"]);

      expect(result).toMatchObject({ exitCode: 1, stdout: "" });
      expect(result.stderr).toContain(
        `error: cannot load \`pebble\`: the RPC server ${address} ${why}`,
      );
    }
    const local = await home.tug(["configure", "pebble", "--gpu-layers", "0"]);
    expect(local.exitCode).toBe(0);
    expect((await home.tug(["run", "pebble", QUESTION])).stdout).toContain("Paris");
    await home.tug(["configure", "pebble", "--unset", "gpu_layers"]);
  });

  test("Ctrl-C ends it with 0, and its server with it", async () => {
    await using lender = await lend(home, ["--cache"]);
    const servers = await serversOf(home);
    expect(servers).toHaveLength(1);

    lender.interrupt();

    expect((await lender.ended).exitCode).toBe(0);
    for (const pid of servers) await eventually(async () => !(await isAlive(pid)));
  });

  test("a port that is taken, an address that others reach, an unknown device: each is one sentence", async () => {
    await using lender = await lend(home);
    const port = lender.address.split(":")[1] ?? "";
    const cases = [
      [["--port", port], 1, "the port is taken"],
      [["--host", "0.0.0.0"], 2, "could run code on this machine"],
      [["--host", "192.0.2.7", "--open-network", "--port", "0"], 2, "the system does not allow it"],
      [["--device", "CUDA77", "--port", "0"], 1, "there is no device `CUDA77`"],
    ] as const;
    for (const [args, exitCode, reason] of cases) {
      const result = await home.tug(["rpc", "serve", ...args]);

      expect(result).toMatchObject({ exitCode, stdout: "" });
      expect(result.stderr).toContain(reason);
    }
  });
});
