import { describe, expect, test } from "bun:test";
import { chmod, mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { delimiter, join } from "node:path";
import type { HelperCall, HelperOutput } from "../../src/oci/credential-helper.ts";
import { createCredentials, type CredentialStore } from "../../src/oci/credentials.ts";
import { failureOf, rejectionOf } from "../http/failure-of.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { isRoot, isWindows, testIf } from "../helpers/test-if.ts";

const signal = new AbortController().signal;
const MISS: HelperOutput = {
  exitCode: 1,
  stdout: "credentials not found in native keychain\n",
  stderr: "",
};

interface Setup {
  readonly env?: Record<string, string>;
  /** Docker's config.json: an object, or the very text. */
  readonly docker?: unknown;
  readonly own?: unknown;
  readonly helper?: (call: HelperCall) => HelperOutput | Promise<HelperOutput>;
}

interface Home extends AsyncDisposable {
  readonly path: string;
  readonly store: CredentialStore;
  readonly calls: HelperCall[];
  readonly ownFile: string;
}

async function home(setup: Setup = {}): Promise<Home> {
  const directory = await tempDir();
  const write = async (name: string, content: unknown): Promise<void> => {
    if (content === undefined) return;
    await mkdir(join(directory.path, name, ".."), { recursive: true });
    const text = typeof content === "string" ? content : JSON.stringify(content);
    await writeFile(join(directory.path, name), text);
  };
  await write(".docker/config.json", setup.docker);
  await write("tug/auth.json", setup.own);
  const calls: HelperCall[] = [];
  const store = createCredentials({
    env: setup.env ?? {},
    home: directory.path,
    configDirectory: join(directory.path, "tug"),
    run: async (call) => {
      calls.push(call);
      return (setup.helper ?? (() => MISS))(call);
    },
  });
  return {
    path: directory.path,
    store,
    calls,
    ownFile: join(directory.path, "tug/auth.json"),
    [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose](),
  };
}

function auth(username: string, password: string): { auth: string } {
  return { auth: Buffer.from(`${username}:${password}`).toString("base64") };
}

function answering(username: string, secret: string): () => HelperOutput {
  const stdout = JSON.stringify({ ServerURL: "x", Username: username, Secret: secret });
  return () => ({ exitCode: 0, stdout, stderr: "" });
}

function missingProgram(): never {
  throw Object.assign(new Error("spawn"), { code: "ENOENT" });
}

describe("find", () => {
  test("nothing anywhere is nobody", async () => {
    await using it = await home();

    expect(await it.store.find("docker.io", { signal })).toBeUndefined();
  });

  test.each([
    [{ DOCKER_USERNAME: "u", DOCKER_PASSWORD: "p" }, "docker.io", "DOCKER_USERNAME"],
    [{ DOCKER_HUB_USER: "u", DOCKER_HUB_PASSWORD: "p" }, "docker.io", "DOCKER_HUB_USER"],
    [
      {
        DOCKER_USERNAME: "u",
        DOCKER_PASSWORD: "p",
        DOCKER_REGISTRY: "https://R.example.com:5000/v2/",
      },
      "r.example.com:5000",
      "DOCKER_USERNAME",
    ],
    [
      { DOCKER_USERNAME: "u", DOCKER_PASSWORD: "p", DOCKER_REGISTRY: "index.docker.io" },
      "docker.io",
      "DOCKER_USERNAME",
    ],
  ])("environment %p for %s", async (env, host, source) => {
    await using it = await home({ env, docker: { auths: { [host]: auth("other", "other") } } });

    expect(await it.store.find(host, { signal })).toEqual({ username: "u", password: "p", source });
  });

  test.each([
    [{ DOCKER_USERNAME: "u", DOCKER_PASSWORD: "p" }, "r.example.com"],
    [
      { DOCKER_HUB_USER: "u", DOCKER_HUB_PASSWORD: "p", DOCKER_REGISTRY: "r.example.com" },
      "r.example.com",
    ],
    [{ DOCKER_USERNAME: "u", DOCKER_PASSWORD: "p", DOCKER_REGISTRY: "r.example.com" }, "docker.io"],
    [{ DOCKER_USERNAME: "u" }, "docker.io"],
  ])("environment %p says nothing about %s", async (env, host) => {
    await using it = await home({ env });

    expect(await it.store.find(host, { signal })).toBeUndefined();
  });

  test.each([
    ["https://index.docker.io/v1/", "docker.io"],
    ["index.docker.io", "docker.io"],
    ["docker.io", "docker.io"],
    ["https://registry-1.docker.io/v2/", "docker.io"],
    ["r.example.com:5000", "r.example.com:5000"],
    ["https://R.example.com:5000/", "r.example.com:5000"],
    ["http://r.example.com:5000/v1/", "r.example.com:5000"],
    ["https://r.example.com:5000/v2", "r.example.com:5000"],
  ])("Docker's file: key %s is for %s", async (key, host) => {
    await using it = await home({ docker: { auths: { [key]: auth("ann", "a:b") } } });

    expect(await it.store.find(host, { signal })).toEqual({
      username: "ann",
      password: "a:b",
      source: "~/.docker/config.json",
    });
    expect(await it.store.find("other.example.com", { signal })).toBeUndefined();
  });

  test("the exact key wins over one that means the same", async () => {
    await using it = await home({
      docker: {
        auths: {
          "https://r.example.com/v2/": auth("old", "old"),
          "r.example.com": auth("new", "new"),
        },
      },
    });

    expect((await it.store.find("r.example.com", { signal }))?.username).toBe("new");
  });

  test("DOCKER_CONFIG is a directory", async () => {
    await using it = await home();
    await using other = await tempDir();
    await writeFile(
      join(other.path, "config.json"),
      JSON.stringify({ auths: { "r.example.com": auth("ann", "p") } }),
    );
    const store = createCredentials({
      env: { DOCKER_CONFIG: other.path },
      home: it.path,
      configDirectory: join(it.path, "tug"),
    });

    const found = await store.find("r.example.com", { signal });

    expect(found?.source).toBe(join(other.path, "config.json"));
  });

  test.each([
    [
      { username: "u", password: "p" },
      { username: "u", password: "p" },
    ],
    [auth("<token>", "t"), { username: "<token>", password: "", identityToken: "t" }],
    [
      { ...auth("u", ""), identitytoken: "t" },
      { username: "u", password: "", identityToken: "t" },
    ],
    [{ identitytoken: "t" }, { username: "", password: "", identityToken: "t" }],
    [auth("u", "p\0\0"), { username: "u", password: "p" }],
  ])("entry %p", async (entry, expected) => {
    await using it = await home({ docker: { auths: { "r.example.com": entry } } });

    expect(await it.store.find("r.example.com", { signal })).toEqual({
      ...expected,
      source: "~/.docker/config.json",
    });
  });

  test("an entry that Docker left empty is none", async () => {
    await using it = await home({ docker: { auths: { "r.example.com": {} } } });

    expect(await it.store.find("r.example.com", { signal })).toBeUndefined();
  });

  test("our own file comes before Docker's", async () => {
    await using it = await home({
      own: { auths: { "r.example.com": auth("own", "p") } },
      docker: { credsStore: "x", auths: { "r.example.com": auth("docker", "p") } },
    });

    const found = await it.store.find("r.example.com", { signal });

    expect(found?.username).toBe("own");
    expect(it.calls).toHaveLength(0);
  });

  test.each([
    ["no JSON", "{ secret", /it is not JSON$/],
    ["no object", "[]", /it is not a JSON object$/],
    ["auths", { auths: ["secret"] }, /`auths` is not an object$/],
    ["credHelpers", { credHelpers: "secret" }, /`credHelpers` is not an object$/],
    ["credsStore", { credsStore: { secret: 1 } }, /`credsStore` is not a text$/],
    [
      "an entry",
      { auths: { "r.example.com": "secret" } },
      /its entry for `r\.example\.com` is damaged$/,
    ],
    ["a type", { auths: { "r.example.com": { auth: 1 } } }, /is damaged$/],
    ["base64", { auths: { "r.example.com": { auth: "secret!" } } }, /is damaged$/],
    ["a colon", { auths: { "r.example.com": { auth: "c2VjcmV0" } } }, /is damaged$/],
    ["a helper", { credsStore: "../secret" }, /the name of a credential helper is not valid$/],
    [
      "a helper's type",
      { credHelpers: { "r.example.com": 7 } },
      /the name of a credential helper is not valid$/,
    ],
    ["size", `{"a":"${"x".repeat(1024 * 1024)}"}`, /it is too large$/],
  ])("a damaged file is named and not quoted: %s", async (...row) => {
    const [, docker, message] = row;
    await using it = await home({ docker });

    const error = await failureOf(it.store.find("r.example.com", { signal }));

    expect(error.code).toBe("usage");
    expect(error.message).toStartWith("cannot read credentials from `~/.docker/config.json`: ");
    expect(error.message).toMatch(message);
    expect(JSON.stringify([error.message, error.details, String(error.cause)])).not.toContain(
      "secret",
    );
  });

  testIf(!isRoot && !isWindows, "root reads everything")(
    "a file that may not be read is named",
    async () => {
      await using it = await home({ docker: {} });
      await chmod(join(it.path, ".docker/config.json"), 0);

      const error = await failureOf(it.store.find("r.example.com", { signal }));

      expect(error.message).toContain("EACCES");
    },
  );

  test("a damaged entry of another registry is no obstacle", async () => {
    await using it = await home({
      docker: { auths: { "bad.example.com": 1, "r.example.com": auth("ann", "p") } },
    });

    expect((await it.store.find("r.example.com", { signal }))?.username).toBe("ann");
  });
});

describe("credential helpers", () => {
  test("the helper of the registry comes before that of all", async () => {
    await using it = await home({
      docker: { credHelpers: { "https://r.example.com": "own" }, credsStore: "all" },
      helper: answering("ann", "p"),
    });

    const found = await it.store.find("r.example.com", { signal });

    expect(found).toEqual({
      username: "ann",
      password: "p",
      source: "the credential helper `own`",
    });
    expect(it.calls[0]).toMatchObject({
      argv: ["docker-credential-own", "get"],
      input: "r.example.com",
    });
  });

  test("Docker Hub has its old name there", async () => {
    await using it = await home({ docker: { credsStore: "all" }, helper: answering("ann", "p") });

    await it.store.find("docker.io", { signal });

    expect(it.calls[0]?.input).toBe("https://index.docker.io/v1/");
  });

  test("a token is an identity token", async () => {
    await using it = await home({
      docker: { credsStore: "all" },
      helper: answering("<token>", "t"),
    });

    expect(await it.store.find("r.example.com", { signal })).toMatchObject({
      password: "",
      identityToken: "t",
    });
  });

  test.each([
    ["it says so", () => MISS],
    ["it says nothing", answering("", "")],
  ])("what it does not have is looked for in the file: %s", async (_what, helper) => {
    await using it = await home({
      docker: { credsStore: "all", auths: { "r.example.com": auth("file", "p") } },
      helper,
    });

    expect((await it.store.find("r.example.com", { signal }))?.username).toBe("file");
  });

  test.each([
    [
      "its words",
      () => ({ exitCode: 1, stdout: "", stderr: "the \u001B[1mvault\nis locked" }),
      /: the \[1mvault is locked$/,
    ],
    ["its words on stdout", () => ({ exitCode: 1, stdout: "locked", stderr: "" }), /: locked$/],
    ["no words", () => ({ exitCode: 3, stdout: "", stderr: "" }), /it ended with exit code 3$/],
    [
      "no JSON",
      () => ({ exitCode: 0, stdout: "secret", stderr: "" }),
      /its answer is not a credential$/,
    ],
    [
      "no credential",
      () => ({ exitCode: 0, stdout: '{"Secret":1}', stderr: "" }),
      /its answer is not a credential$/,
    ],
    ["a failure to run", () => Promise.reject(new Error("it did not end")), /it did not end$/],
  ])("a helper that fails says why: %s", async (...row) => {
    const [, helper, message] = row;
    await using it = await home({ docker: { credsStore: "all" }, helper });

    const error = await failureOf(it.store.find("r.example.com", { signal }));

    expect(error.code).toBe("unauthorized");
    expect(error.message).toStartWith("cannot use credential helper `docker-credential-all`: ");
    expect(error.message.replaceAll("  ", " ")).toMatch(message);
    expect(error.message).not.toContain("secret");
  });

  test("a missing helper for all registries keeps nobody from what is public", async () => {
    await using it = await home({ docker: { credsStore: "desktop" }, helper: missingProgram });

    expect(await it.store.find("docker.io", { signal })).toBeUndefined();
  });

  test("a missing helper for this registry is an error", async () => {
    await using it = await home({
      docker: { credHelpers: { "r.example.com": "ecr-login" } },
      helper: missingProgram,
    });

    const error = await failureOf(it.store.find("r.example.com", { signal }));

    expect(error.message).toBe(
      "cannot use credential helper `docker-credential-ecr-login`: there is no such program",
    );
  });

  test("an abort passes the signal's reason on", async () => {
    const controller = new AbortController();
    await using it = await home({
      docker: { credsStore: "all" },
      helper: () => {
        controller.abort(new Error("enough"));
        throw new Error("killed");
      },
    });

    const error = await rejectionOf(it.store.find("r.example.com", { signal: controller.signal }));

    expect(error).toHaveProperty("message", "enough");
  });
});

describe("save and remove", () => {
  test("without a helper it is kept in a file of ours, for its owner alone", async () => {
    await using it = await home();

    const where = await it.store.save(
      "r.example.com",
      { username: "ann", password: "p" },
      { signal },
    );

    expect(where).toBe("~/tug/auth.json");
    expect(await it.store.find("r.example.com", { signal })).toEqual({
      username: "ann",
      password: "p",
      source: "~/tug/auth.json",
    });
    expect((await stat(it.ownFile)).mode & 0o777).toBe(isWindows ? 0o666 : 0o600);
    expect((await readdir(join(it.path, "tug"))).filter((name) => name.endsWith(".tmp"))).toEqual(
      [],
    );
  });

  test("what else is in the file stays, and the registry has one entry", async () => {
    await using it = await home({
      own: {
        note: 1,
        auths: {
          "https://index.docker.io/v1/": auth("old", "old"),
          "docker.io": auth("x", "x"),
          "r.example.com": auth("ann", "p"),
        },
      },
    });

    await it.store.save("docker.io", { username: "new", password: "new" }, { signal });

    expect(JSON.parse(await readFile(it.ownFile, "utf8"))).toEqual({
      note: 1,
      auths: {
        "r.example.com": auth("ann", "p"),
        "https://index.docker.io/v1/": auth("new", "new"),
      },
    });
  });

  test("many at once all stay", async () => {
    await using it = await home();
    const hosts = Array.from({ length: 8 }, (_, at) => `r${at}.example.com`);

    await Promise.all(
      hosts.map((host) => it.store.save(host, { username: host, password: "p" }, { signal })),
    );

    const { auths } = JSON.parse(await readFile(it.ownFile, "utf8")) as { auths: object };
    expect(Object.keys(auths).toSorted()).toEqual(hosts);
  });

  test("with a helper it is kept there, and an older one of ours goes", async () => {
    await using it = await home({
      docker: { credsStore: "all" },
      own: { auths: { "r.example.com": auth("old", "old") } },
      helper: () => ({ exitCode: 0, stdout: "", stderr: "" }),
    });

    const where = await it.store.save(
      "r.example.com",
      { username: "ann", password: "p" },
      { signal },
    );

    expect(where).toBe("the credential helper `all`");
    expect(it.calls[0]?.argv).toEqual(["docker-credential-all", "store"]);
    expect(JSON.parse(it.calls[0]?.input ?? "")).toEqual({
      ServerURL: "r.example.com",
      Username: "ann",
      Secret: "p",
    });
    expect(JSON.parse(await readFile(it.ownFile, "utf8"))).toEqual({ auths: {} });
  });

  test("where the helper is missing, the file is used", async () => {
    await using it = await home({ docker: { credsStore: "desktop" }, helper: missingProgram });

    const where = await it.store.save(
      "r.example.com",
      { username: "ann", password: "p" },
      { signal },
    );

    expect(where).toBe("~/tug/auth.json");
  });

  test("a helper that fails to store is an error, and nothing is written", async () => {
    await using it = await home({
      docker: { credsStore: "all" },
      helper: () => ({ exitCode: 1, stdout: "locked", stderr: "" }),
    });

    await failureOf(it.store.save("r.example.com", { username: "ann", password: "p" }, { signal }));

    expect(await Bun.file(it.ownFile).exists()).toBe(false);
  });

  test("remove: from our file", async () => {
    await using it = await home({ own: { auths: { "r.example.com": auth("ann", "p") } } });

    expect(await it.store.remove("r.example.com", { signal })).toBe("~/tug/auth.json");
    expect(await it.store.remove("r.example.com", { signal })).toBeUndefined();
    expect(await it.store.find("r.example.com", { signal })).toBeUndefined();
  });

  test("remove: where nothing is kept nothing is made", async () => {
    await using it = await home();

    expect(await it.store.remove("r.example.com", { signal })).toBeUndefined();
    expect(await readdir(it.path)).toEqual([]);
  });

  test("remove: from the helper, if it has one", async () => {
    await using it = await home({
      docker: { credsStore: "all" },
      helper: answering("ann", "p"),
    });

    expect(await it.store.remove("r.example.com", { signal })).toBe("the credential helper `all`");
    expect(it.calls.map(({ argv }) => argv[1])).toEqual(["get", "erase"]);
  });

  test("remove: a helper that has none is not bothered", async () => {
    await using it = await home({ docker: { credsStore: "all" } });

    expect(await it.store.remove("r.example.com", { signal })).toBeUndefined();
    expect(it.calls.map(({ argv }) => argv[1])).toEqual(["get"]);
  });
});

async function withProgram(script: string): Promise<AsyncDisposable & { store: CredentialStore }> {
  const it = await home({ docker: { credsStore: "fake" } });
  const program = join(it.path, "docker-credential-fake");
  await writeFile(program, `#!/bin/sh\n${script}\n`);
  await chmod(program, 0o755);
  const path = `${it.path}${delimiter}${process.env["PATH"] ?? ""}`;
  return {
    store: createCredentials({
      env: { PATH: path },
      home: it.path,
      configDirectory: join(it.path, "tug"),
    }),
    [Symbol.asyncDispose]: () => it[Symbol.asyncDispose](),
  };
}

describe("helper programs", () => {
  const onUnix = testIf(!isWindows, "the helpers of these tests are shell scripts");

  onUnix("the server's name is given on stdin, the action as the only argument", async () => {
    await using it = await withProgram(
      `read server; printf '{"ServerURL":"","Username":"%s","Secret":"%s %s"}' "$server" "$1" "$#"`,
    );

    expect(await it.store.find("r.example.com", { signal })).toMatchObject({
      username: "r.example.com",
      password: "get 1",
    });
  });

  onUnix("a helper that talks without end is stopped", async () => {
    await using it = await withProgram("cat /dev/zero");

    const error = await failureOf(it.store.find("r.example.com", { signal }));

    expect(error.message).toEndWith("it wrote more than 262144 bytes");
  });

  onUnix("one that leaves a program running is not waited for until that ends", async () => {
    await using it = await withProgram(
      `sleep 5 & printf '{"Username":"ann","Secret":"left %s"}' "$!"`,
    );

    const found = await it.store.find("r.example.com", { signal: AbortSignal.timeout(4000) });

    const left = Number(/^left (\d+)$/.exec(found?.password ?? "")?.[1]);
    expect(process.kill(left, "SIGKILL")).toBe(true);
  });

  onUnix("a helper that hangs is stopped by the signal", async () => {
    await using it = await withProgram("exec sleep 600");
    const controller = new AbortController();
    const finding = it.store.find("r.example.com", { signal: controller.signal });

    controller.abort(new Error("enough"));

    expect(await rejectionOf(finding)).toHaveProperty("message", "enough");
  });

  onUnix("one that is not there is no obstacle", async () => {
    await using it = await home({ docker: { credsStore: "fake" } });
    const store = createCredentials({
      env: { PATH: it.path },
      home: it.path,
      configDirectory: join(it.path, "tug"),
    });

    expect(await store.find("r.example.com", { signal })).toBeUndefined();
  });
});
