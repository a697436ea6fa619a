import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import OpenAI from "openai";
import type { RunnerInfo } from "../../src/api/engines.ts";
import { tugBinary } from "../helpers/binary.ts";
import { eventually } from "../helpers/eventually.ts";
import { QUESTION } from "../helpers/pebble.ts";
import { cleanEnvironment } from "../helpers/run-cli.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { type TugHome, tugHome } from "../helpers/tug-home.ts";

setDefaultTimeout(60_000);

describe("tug serve --tls", () => {
  let home: TugHome;
  let serving: Serving;
  let ca: string;

  beforeAll(async () => {
    home = await tugHome({ engine: true });
    serving = await serve(home, ["--tls"]);
    ca = await readFile(join(home.path, "tls", "ca.crt"), "utf8");
  }, 240_000);
  afterAll(async () => {
    await serving.stop();
    await home[Symbol.asyncDispose]();
  });

  test("says where the authority is and how clients come to trust it", () => {
    const file = join(home.path, "tls", "ca.crt");

    expect(serving.said()).toContain(`Listening on https://127.0.0.1:${home.port}`);
    expect(serving.said()).toContain(`curl --cacert ${file} https://localhost:${home.port}/`);
    expect(serving.said()).toContain(`NODE_EXTRA_CA_CERTS=${file}`);
    expect(serving.said()).not.toContain("PRIVATE KEY");
  });

  test("status shows the https endpoint and the authority, over the plain socket", async () => {
    const { stdout } = await home.tug(["status", "--json"]);

    expect(JSON.parse(stdout)).toMatchObject({
      endpoint: `https://127.0.0.1:${home.port}`,
      authority: join(home.path, "tls", "ca.crt"),
    } satisfies Partial<RunnerInfo>);
  });

  test("the openai package gets a streamed answer over TLS", async () => {
    const client = new OpenAI({
      baseURL: `https://localhost:${home.port}/v1`,
      apiKey: "not-needed",
      maxRetries: 0,
      fetchOptions: { tls: { ca } } as never,
    });

    const stream = await client.chat.completions.create({
      model: "ai/pebble",
      messages: [{ role: "user", content: QUESTION }],
      temperature: 0,
      stream: true,
    });
    const pieces: string[] = [];
    for await (const chunk of stream) pieces.push(chunk.choices[0]?.delta.content ?? "");

    expect(pieces.join("")).toContain("Paris");
    expect(pieces.length).toBeGreaterThan(3);
  });

  test("commands of this machine trust its authority by themselves", async () => {
    const { exitCode } = await home.tug(["--host", `https://localhost:${home.port}`, "list"]);

    expect(exitCode).toBe(0);
  });

  test("commands of another machine want the authority, and never go without", async () => {
    await using other = await tempDir();
    const host = ["--host", `https://localhost:${home.port}`];
    const file = join(home.path, "tls", "ca.crt");
    const env = { TUG_HOME: other.path };

    const without = await home.tug([...host, "list"], { env });
    const byFlag = await home.tug([...host, "--ca-bundle", file, "list"], { env });
    const byVariable = await home.tug([...host, "list"], { env: { ...env, TUG_TLS_CA: file } });
    const byAlias = await home.tug([...host, "list"], {
      env: { ...env, MODEL_RUNNER_TLS_CA_CERT: file },
    });
    const absent = await home.tug([...host, "list"], { env: { ...env, TUG_TLS_CA: "/absent" } });

    expect(without.exitCode).not.toBe(0);
    expect(without.stderr).toContain("SELF_SIGNED_CERT_IN_CHAIN");
    expect(without.stderr).toContain("TUG_TLS_CA");
    expect([byFlag.exitCode, byVariable.exitCode, byAlias.exitCode]).toEqual([0, 0, 0]);
    expect(absent.exitCode).toBe(2);
    expect(absent.stderr).toContain("/absent");
  });

  test("plain http is told to write https", async () => {
    const { stderr } = await home.tug(["--host", `http://localhost:${home.port}`, "list"]);

    expect(stderr).toContain("https://");
  });
});

describe("the certificate", () => {
  test("is the same after a restart, and so is the authority", async () => {
    await using home = await tugHome();
    const read = (name: string): Promise<string> => readFile(join(home.path, "tls", name), "utf8");

    const first = await serve(home, ["--tls"]);
    const [authority, certificate] = await Promise.all([read("ca.crt"), read("server.crt")]);
    await first.stop();
    const second = await serve(home, ["--tls"]);
    const after = await Promise.all([read("ca.crt"), read("server.crt")]);
    await second.stop();

    expect(after).toEqual([authority, certificate]);
  });

  test("may be one's own, in the background, too", async () => {
    await using maker = await tugHome();
    await (await serve(maker, ["--tls"])).stop();
    await using home = await tugHome({
      env: {
        TUG_TLS_CERT: join(maker.path, "tls", "server.crt"),
        TUG_TLS_KEY: join(maker.path, "tls", "server.key"),
      },
    });
    const ca = await readFile(join(maker.path, "tls", "ca.crt"), "utf8");

    const started = await home.tug(["start-runner"]);
    const response = await fetch(`https://127.0.0.1:${home.port}/version`, {
      tls: { ca },
      keepalive: false,
    } as RequestInit);

    expect(started.exitCode).toBe(0);
    expect(response.status).toBe(200);
  });

  test("that cannot be used ends the start, and says why", async () => {
    await using home = await tugHome();

    const lone = await home.tug(["serve", "--tls-cert", "/absent"]);
    const absent = await home.tug(["serve", "--tls-cert", "/absent", "--tls-key", "/absent"]);
    const background = await home.tug(["start-runner"], { env: { TUG_TLS_CERT: "/absent" } });

    expect([lone.exitCode, absent.exitCode]).toEqual([2, 2]);
    expect(lone.stderr).toContain("no key");
    expect(absent.stderr).toContain("`/absent`: there is no such file");
    expect(background.exitCode).not.toBe(0);
    expect(background.stderr).toContain("no key");
  });
});

interface Serving {
  /** What it wrote on stderr so far. */
  said(): string;
  stop(): Promise<void>;
}

async function serve(home: TugHome, args: readonly string[]): Promise<Serving> {
  const child = Bun.spawn([await tugBinary(), "serve", ...args], {
    env: { ...cleanEnvironment(), ...home.env },
    stdio: ["ignore", "ignore", "pipe"],
  });
  let text = "";
  const reading = (async () => {
    for await (const chunk of child.stderr.pipeThrough(new TextDecoderStream())) text += chunk;
  })();
  await eventually(() => /^ {2}tug --host/m.test(text) || child.exitCode !== null);
  return {
    said: () => text,
    async stop() {
      child.kill("SIGTERM");
      await child.exited;
      await reading;
    },
  };
}
