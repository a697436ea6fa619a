import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { loadConfig } from "../../src/config.ts";
import { parseMirrors, toRemoteSettings } from "../../src/models/remote-settings.ts";
import { resolvePaths } from "../../src/paths.ts";
import { tempDir } from "../helpers/temp-dir.ts";

describe("parseMirrors", () => {
  test("an address alone is a mirror of Docker Hub, in the order given", () => {
    expect([...parseMirrors(["mirror.example", "http://other.example:5000/cache/v2/"])]).toEqual([
      ["docker.io", ["https://mirror.example", "http://other.example:5000/cache"]],
    ]);
  });

  test("a registry can be named", () => {
    const mirrors = parseMirrors(["ghcr.io=https://m.example/ghcr", "index.docker.io=m.example"]);
    expect(mirrors.get("ghcr.io")).toEqual(["https://m.example/ghcr"]);
    expect(mirrors.get("docker.io")).toEqual(["https://m.example"]);
  });

  test("a user name in an address is dropped: mirrors have credentials of their own", () => {
    expect(parseMirrors(["https://me:secret@m.example"]).get("docker.io")).toEqual([
      "https://m.example",
    ]);
  });

  test.each(["", "https://", "a=b=c?d", "https://m.example/?x=1"])("refuses %p", (entry) => {
    expect(() => parseMirrors([entry])).toThrow("as a registry mirror");
  });
});

test("parseMirrors: what cannot be understood is shown without its password", () => {
  expect(() => parseMirrors(["https://me:secret@m.example/?x"])).toThrow(
    "`https://m.example/?x` as a registry mirror",
  );
});

describe("toRemoteSettings", () => {
  test("where it is strict, registries have to be named to be insecure", () => {
    const env = { TUG_HOME: "/nowhere", HOME: "/nowhere", TUG_INSECURE_REGISTRIES: "*,a.example" };
    const paths = resolvePaths(env, "linux");
    const config = loadConfig(paths.configFile, env);

    const { insecureRegistries } = toRemoteSettings({ config, paths, env }, { isStrict: true });

    expect(insecureRegistries).toEqual(["a.example"]);
  });

  test("what a request asks for wins over the settings; 0 is no limit", async () => {
    await using home = await tempDir();
    const env = {
      TUG_HOME: home.path,
      HOME: home.path,
      TUG_CONNECTIONS: "2",
      TUG_LIMIT_RATE: "1MB",
      TUG_INSECURE_REGISTRIES: "a.example",
      HF_TOKEN: "from-environment",
    };
    const paths = resolvePaths(env, "linux");
    const config = loadConfig(join(home.path, "config.toml"), env);
    const plain = toRemoteSettings({ config, paths, env });
    expect(plain.limits).toEqual({ connections: 2, bytesPerSecond: 1_000_000 });
    expect(plain.huggingFace.token()).toBe("from-environment");
    const overrides = {
      connections: 4,
      limitRate: 0,
      insecureRegistries: ["b.example"],
      token: "own",
    };
    const own = toRemoteSettings({ config, paths, env }, overrides);
    expect(own.limits).toEqual({ connections: 4, bytesPerSecond: undefined });
    expect(own.insecureRegistries).toEqual(["a.example", "b.example"]);
    expect(own.huggingFace.token()).toBe("own");
  });
});

test("a token of a request is the identity of its host alone", async () => {
  await using home = await tempDir();
  const env = { TUG_HOME: home.path, HOME: home.path };
  const paths = resolvePaths(env, "linux");
  const config = loadConfig(join(home.path, "config.toml"), env);
  const overrides = { token: "secret", tokenHost: "a.example" };
  const { credentials } = toRemoteSettings({ config, paths, env }, overrides);
  const { signal } = new AbortController();
  expect(await credentials.find("a.example", { signal })).toMatchObject({
    identityToken: "secret",
  });
  expect(await credentials.find("b.example", { signal })).toBeUndefined();
});
