import { afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { Database } from "bun:sqlite";
import Anthropic from "@anthropic-ai/sdk";
import { readdir, readFile } from "node:fs/promises";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import OpenAI from "openai";
import type { ApiKeyInfo, CreatedKey } from "../../src/api/keys.ts";
import { tugBinary } from "../helpers/binary.ts";
import { eventually } from "../helpers/eventually.ts";
import { cleanEnvironment } from "../helpers/run-cli.ts";
import { testIf } from "../helpers/test-if.ts";
import { type TugHome, tugHome } from "../helpers/tug-home.ts";

setDefaultTimeout(60_000);

/** Under which others reach this machine. */
const LAN_ADDRESS = Object.values(networkInterfaces())
  .flatMap((addresses) => addresses ?? [])
  .find(({ family, internal }) => family === "IPv4" && !internal)?.address;

interface Served extends AsyncDisposable {
  /** Until now. */
  stdout(): string;
  stderr(): string;
}

/** `tug serve` until it listens. */
async function serve(home: TugHome, args: readonly string[]): Promise<Served> {
  const child = Bun.spawn([await tugBinary(), "serve", ...args], {
    env: { ...cleanEnvironment(), ...home.env },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const said = { stdout: "", stderr: "" };
  const reading = (["stdout", "stderr"] as const).map(async (name) => {
    const decoder = new TextDecoder();
    for await (const chunk of child[name]) said[name] += decoder.decode(chunk, { stream: true });
  });
  await eventually(() => {
    if (child.exitCode !== null) throw new Error(`it ended: ${said.stderr}`);
    return (
      said.stderr.includes("Listening on") &&
      (!args.includes("--lan") || said.stdout.includes("Key:"))
    );
  }, 30_000);
  return {
    stdout: () => said.stdout,
    stderr: () => said.stderr,
    async [Symbol.asyncDispose]() {
      child.kill("SIGTERM");
      await child.exited;
      await Promise.all(reading);
    },
  };
}

async function createKey(home: TugHome, ...args: string[]): Promise<CreatedKey> {
  const { stdout, stderr, exitCode } = await home.tug(["key", "create", ...args, "--json"]);
  if (exitCode !== 0) throw new Error(stderr);
  return JSON.parse(stdout) as CreatedKey;
}

async function createExpiredKey(home: TugHome, name: string): Promise<void> {
  await createKey(home, name, "--expires", "1h");
  const [file = ""] = await Array.fromAsync(
    new Bun.Glob("**/tug.db").scan({ cwd: home.path, absolute: true }),
  );
  using database = new Database(file);
  database.run("UPDATE api_keys SET expires_at = ?", [Date.now() - 1]);
}

async function listKeys(home: TugHome): Promise<ApiKeyInfo[]> {
  return JSON.parse((await home.tug(["key", "list", "--json"])).stdout) as ApiKeyInfo[];
}

function get(home: TugHome, path: string, key?: string): Promise<Response> {
  return fetch(home.url + path, key === undefined ? {} : { headers: { "x-api-key": key } });
}

async function bytesBelow(directory: string): Promise<Buffer> {
  const entries = await readdir(directory, { withFileTypes: true, recursive: true });
  const files = entries.filter(
    (entry) => entry.isFile() && !join(entry.parentPath, entry.name).includes("/backends/"),
  );
  return Buffer.concat(
    await Promise.all(files.map((entry) => readFile(join(entry.parentPath, entry.name)))),
  );
}

const homes: TugHome[] = [];
afterEach(async () => {
  for (const home of homes.splice(0)) await home[Symbol.asyncDispose]();
});

async function newHome(...options: Parameters<typeof tugHome>): Promise<TugHome> {
  const home = await tugHome(...options);
  homes.push(home);
  return home;
}

describe("tug key", () => {
  test("makes, lists and revokes keys where no runner runs; only the key is on stdout", async () => {
    const home = await newHome();

    const made = await home.tug(["key", "create", "laptop", "--rate", "60/min"]);
    expect(made).toMatchObject({ exitCode: 0 });
    expect(made.stdout).toMatch(/^tug_[A-Za-z0-9_-]{43}\n$/);
    expect(made.stderr).toContain("laptop (inference). It is not shown again");

    const listed = await home.tug(["key", "ls"]);
    expect(listed.exitCode).toBe(2);
    const table = (await home.tug(["key", "list"])).stdout;
    expect(table).toContain("laptop");
    expect(table).toContain("60/min");
    expect(table).not.toContain(made.stdout.trim());
    expect((await bytesBelow(home.path)).includes(made.stdout.trim().slice(11))).toBe(false);

    const revoked = await home.tug(["key", "revoke", "laptop", "absent"]);
    expect(revoked).toMatchObject({ exitCode: 1, stdout: "Revoked laptop\n" });
    expect(revoked.stderr).toContain("cannot revoke `absent`");
    expect(await listKeys(home)).toEqual([]);
  });

  test.each([
    [["key"], "ACTION is missing"],
    [["key", "make"], "nothing to do with keys"],
    [["key", "create"], "one name"],
    [["key", "create", "a", "b"], "one name"],
    [["key", "create", "a b"], "is no name"],
    [["key", "create", "a", "--scope", "root"], "not a scope"],
    [["key", "create", "a", "--expires", "2020-01-01"], "not in the future"],
    [["key", "create", "a", "--rate", "fast"], "`--rate`"],
    [["key", "create", "a", "--max-concurrent", "0"], "`--max-concurrent`"],
    [["key", "list", "a"], "unexpected argument"],
    [["key", "list", "--scope", "admin"], "goes with `tug key create`"],
    [["key", "revoke"], "which keys"],
  ])("%j is a mistake that is told", async (words, said) => {
    const home = await newHome();

    const { exitCode, stderr } = await home.tug(words);

    expect(exitCode).toBeGreaterThan(0);
    expect(stderr).toContain(said);
    expect(stderr).toContain("hint:");
  });
});

describe("a runner that listens beyond loopback", () => {
  test("does not start without a key, and says both ways to have one", async () => {
    const home = await newHome();

    const { exitCode, stderr } = await home.tug(["serve", "--host", "0.0.0.0"]);

    expect(exitCode).toBe(2);
    expect(stderr).toContain("cannot listen on `0.0.0.0` without an API key");
    expect(stderr).toContain("tug key create");
    expect(stderr).toContain("--api-key");
  });

  test("does not start with an expired key only", async () => {
    const home = await newHome();
    await createExpiredKey(home, "old");

    const { exitCode, stderr } = await home.tug(["serve", "--host", "::"]);

    expect(exitCode).toBe(2);
    expect(stderr).toContain("without an API key");
  });

  test("starts with a key, demands it on every address, and heeds scopes and revocation at once", async () => {
    const home = await newHome();
    const { key } = await createKey(home, "one");
    await using _served = await serve(home, ["--host", "0.0.0.0"]);

    expect((await get(home, "/v1/models")).status).toBe(401);
    expect((await get(home, "/v1/models", "tug_wrong")).status).toBe(401);
    expect((await get(home, "/v1/models", key)).status).toBe(200);
    expect((await get(home, "/health/live")).status).toBe(200);
    expect((await get(home, "/logs?no-engines=true", key)).status).toBe(403);

    const admin = await createKey(home, "boss", "--scope", "admin");
    expect((await get(home, "/engines/requests", admin.key)).status).toBe(200);
    const before = await listKeys(home);
    expect(before.map(({ name, last_used }) => [name, last_used !== null])).toEqual([
      ["boss", true],
      ["one", true],
    ]);

    expect((await home.tug(["key", "revoke", "one"])).exitCode).toBe(0);
    expect((await get(home, "/v1/models", key)).status).toBe(401);
    // The socket belongs to the user.
    expect((await home.tug(["ps"])).exitCode).toBe(0);
  });

  test("is used by commands on other machines with TUG_API_KEY, and tells those without how to get one", async () => {
    const home = await newHome();
    const { key } = await createKey(home, "one", "--scope", "inference,models");
    await using _served = await serve(home, ["--host", "0.0.0.0"]);
    const list = (env: Record<string, string>) => home.tug(["--host", home.url, "list"], { env });

    const refused = await list({});
    expect(refused.exitCode).toBe(1);
    expect(refused.stderr).toContain("it needs an API key");
    expect(refused.stderr).toContain("tug key create");
    expect(await list({ TUG_API_KEY: key })).toMatchObject({ exitCode: 0, stderr: "" });
    const keys = await home.tug(["--host", home.url, "key", "list"], { env: { TUG_API_KEY: key } });
    expect(keys.stderr).toContain("lacks the scope `admin`");
  });

  test("keeps keys to their rates, in the words of each SDK", async () => {
    const home = await newHome();
    const slow = await createKey(home, "slow", "--rate", "1/min");
    await using _served = await serve(home, ["--host", "0.0.0.0"]);
    const options = { apiKey: slow.key, maxRetries: 0 };
    const openai = new OpenAI({ ...options, baseURL: `${home.url}/v1` });
    const anthropic = new Anthropic({ ...options, baseURL: `${home.url}/anthropic` });
    const wrong = new OpenAI({ ...options, apiKey: "sk-no", baseURL: `${home.url}/v1` });

    await openai.models.list();
    const limited: unknown = await openai.models.list().catch((error: unknown) => error);
    const refused: unknown = await wrong.models.list().catch((error: unknown) => error);
    const message = {
      model: "m",
      max_tokens: 1,
      messages: [{ role: "user" as const, content: "" }],
    };
    const told: unknown = await anthropic.messages.create(message).catch((error: unknown) => error);

    expect(limited).toBeInstanceOf(OpenAI.RateLimitError);
    expect(refused).toBeInstanceOf(OpenAI.AuthenticationError);
    expect(told).toBeInstanceOf(Anthropic.RateLimitError);
  });
});

describe("--lan", () => {
  test("makes a key once, shows it once, and nothing else keeps it", async () => {
    const home = await newHome({ env: { TUG_LOG: "debug" } });
    let key = "";
    {
      await using first = await serve(home, ["--lan"]);
      key = /^Key: (tug_\S+)/m.exec(first.stdout())?.[1] ?? "";
      expect(key).toMatch(/^tug_[A-Za-z0-9_-]{43}$/);
      expect((await get(home, "/v1/models", key)).status).toBe(200);
      expect((await get(home, "/v1/models", `${key}x`)).status).toBe(401);
      // Who tries keys is told of as a number.
      await eventually(() => first.stderr().includes("without a valid API key count=1"));
      expect(first.stderr()).not.toContain(key.slice(11));
    }
    expect(await listKeys(home)).toMatchObject([{ name: "lan", scopes: ["inference"] }]);
    {
      await using second = await serve(home, ["--lan", "--log-format", "text"]);
      expect(second.stdout()).not.toContain(key.slice(11));
      expect(second.stdout()).toContain("made before; `tug key create NAME`");
      expect((await get(home, "/v1/models", key)).status).toBe(200);
    }
    expect(await listKeys(home)).toHaveLength(1);
    expect((await bytesBelow(home.path)).includes(key.slice(11))).toBe(false);
  });

  test("makes another key in the place of an expired one", async () => {
    const home = await newHome();
    await createExpiredKey(home, "lan");

    await using served = await serve(home, ["--lan"]);

    const key = /^Key: (tug_\S+)/m.exec(served.stdout())?.[1] ?? "";
    expect((await get(home, "/v1/models", key)).status).toBe(200);
  });

  testIf(LAN_ADDRESS !== undefined, "this machine has no network")(
    "prints addresses under which others reach it",
    async () => {
      const home = await newHome();
      await using served = await serve(home, ["--lan"]);
      const urls = [...served.stdout().matchAll(/^URL: (\S+)$/gm)].map(([, url = ""]) => url);
      const key = /^Key: (tug_\S+)/m.exec(served.stdout())?.[1] ?? "";
      const headers = { authorization: `Bearer ${key}` };

      expect(urls).toContain(`http://${LAN_ADDRESS}:${home.port}`);
      for (const url of urls) {
        expect((await fetch(`${url}/v1/models`)).status).toBe(401);
        expect((await fetch(`${url}/v1/models`, { headers })).status).toBe(200);
      }
    },
  );

  test("with a key of the user's own makes none", async () => {
    const home = await newHome();

    await using served = await serve(home, ["--lan", "--api-key", "mine"]);

    expect(served.stdout()).toContain("Key: the one of --api-key\n");
    expect(served.stdout()).not.toContain("mine");
    expect(served.stderr()).toContain("travel unencrypted");
    expect(await listKeys(home)).toEqual([]);
    expect((await get(home, "/v1/models", "mine")).status).toBe(200);
    expect((await get(home, "/v1/models")).status).toBe(401);
  });

  test("with --tls is https on every address, and says whom to trust", async () => {
    const home = await newHome();

    await using served = await serve(home, ["--lan", "--tls"]);
    const key = /^Key: (tug_\S+)/m.exec(served.stdout())?.[1] ?? "";
    const ca = await readFile(join(home.path, "tls", "ca.crt"), "utf8");
    const urls = [...served.stdout().matchAll(/^URL: (https:\S+)$/gm)].map(([, url = ""]) => url);

    for (const url of [`https://localhost:${home.port}`, ...urls]) {
      const ask = (headers: Record<string, string>) =>
        fetch(`${url}/v1/models`, { headers, tls: { ca } });
      expect((await ask({})).status).toBe(401);
      expect((await ask({ "x-api-key": key })).status).toBe(200);
    }
    expect(served.stdout()).not.toContain("http:");
    expect(served.stderr()).toContain("Certificate authority: ");
    expect(served.stderr()).not.toContain("unencrypted");
  });

  test("does not go with an address", async () => {
    const home = await newHome();

    const { exitCode, stderr } = await home.tug(["serve", "--lan", "--host", "127.0.0.1"]);

    expect(exitCode).toBe(2);
    expect(stderr).toContain("exclude each other");
  });
});

describe("a model behind keys", () => {
  test("a key with one request at once gets the next one when the stream has ended", async () => {
    const home = await newHome({ engine: true });
    const { key } = await createKey(home, "one", "--max-concurrent", "1");
    await using _served = await serve(home, ["--host", "0.0.0.0"]);
    const openai = new OpenAI({ apiKey: key, maxRetries: 0, baseURL: `${home.url}/v1` });
    // Without a limit it would go on until the context is full.
    const ask = (max_tokens: number | null, signal?: AbortSignal) =>
      openai.chat.completions.create(
        {
          model: "pebble",
          messages: [{ role: "user", content: "What is the capital of France?" }],
          stream: true,
          max_tokens,
          ...({ ignore_eos: true } as object),
        },
        signal === undefined ? {} : { signal },
      );

    const leaving = new AbortController();
    const first = await ask(null, leaving.signal);
    const [piece] = [await first[Symbol.asyncIterator]().next()];
    const second: unknown = await ask(1).catch((error: unknown) => error);
    leaving.abort();
    const third = await eventually(() => ask(50));
    let text = "";
    // Revoked in the middle: the answer is finished, the next request is refused.
    expect((await home.tug(["key", "revoke", "one"])).exitCode).toBe(0);
    for await (const chunk of third) text += chunk.choices[0]?.delta.content ?? "";
    const fourth: unknown = await ask(1).catch((error: unknown) => error);

    expect(piece?.done).toBe(false);
    expect(second).toBeInstanceOf(OpenAI.RateLimitError);
    expect(text.length).toBeGreaterThan(10);
    expect(fourth).toBeInstanceOf(OpenAI.AuthenticationError);
  });
});

describe("a runner on loopback", () => {
  test("takes what SDKs send as a key, whatever keys there are", async () => {
    const home = await newHome();
    await createKey(home, "one");
    await using _served = await serve(home, []);

    expect((await get(home, "/v1/models", "not-needed")).status).toBe(200);
    expect((await get(home, "/v1/models")).status).toBe(200);
    expect((await get(home, "/keys", "not-needed")).status).toBe(403);
  });

  test("demands the key that it is told to", async () => {
    const home = await newHome();
    await using _served = await serve(home, ["--api-key", "mine"]);

    expect((await get(home, "/v1/models", "not-needed")).status).toBe(401);
    expect((await get(home, "/v1/models", "mine")).status).toBe(200);
  });
});
