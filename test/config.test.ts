import { describe, expect, test } from "bun:test";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { loadConfig, parseBaseUrl, parseDuration, parsePort, withFlag } from "../src/config.ts";
import { parseBodySize, parseConnections, parseRate } from "../src/config-values.ts";
import { tempDir } from "./helpers/temp-dir.ts";

describe("loadConfig", () => {
  test("without environment and file gives the defaults and says so", () => {
    const config = loadConfig("/nonexistent/config.toml", {});

    expect(config.port).toEqual({ value: 12434, source: "default" });
    expect(config.keepAliveMs.value).toBe(300_000);
  });

  test("the environment wins over the file, Tug's name over the alias", async () => {
    await using directory = await tempDir();
    const file = join(directory.path, "config.toml");
    await writeFile(
      file,
      'port = 1000\nkeep_alive = "1h30m"\norigins = ["https://a", "https://b"]\n',
    );

    const config = loadConfig(file, { TUG_PORT: "2000", MODEL_RUNNER_PORT: "3000" });

    expect(config.port).toEqual({ value: 2000, source: "TUG_PORT" });
    expect(config.keepAliveMs).toEqual({ value: 5_400_000, source: "config.toml" });
    expect(config.origins.value).toEqual(["https://a", "https://b"]);
  });

  test("has names that stand for models", async () => {
    await using directory = await tempDir();
    const file = join(directory.path, "config.toml");
    await writeFile(file, '[aliases]\n"claude-*" = "ai/pebble"\n');

    const { aliases } = loadConfig(file, {});

    expect(aliases).toEqual({ value: { "claude-*": "ai/pebble" }, source: "config.toml" });
  });

  test("names the variable that cannot be read", () => {
    expect(() => loadConfig("/nonexistent", { TUG_PORT: "http" })).toThrow(
      "cannot read TUG_PORT: `http` is not a port",
    );
  });

  test.each([
    ["prot = 1\n", "unknown setting `prot`"],
    ["port = \n", "cannot read"],
    ['offline = "maybe"\n', "`maybe` is neither true nor false"],
    ['aliases = "a"\n', "cannot read `aliases` in config.toml: it is not a table"],
    ["[aliases]\na = 7\n", "`a` is not the name of a model"],
    ['[aliases]\n"a*b" = "c"\n', "a `*` can only stand at its end"],
    ['[aliases]\n"" = "c"\n', "a `*` can only stand at its end"],
  ])("refuses the file %p", async (text, message) => {
    await using directory = await tempDir();
    const file = join(directory.path, "config.toml");
    await writeFile(file, text);

    expect(() => loadConfig(file, {})).toThrow(message);
  });
});

describe("parseDuration", () => {
  test.each([
    ["5m", 300_000],
    ["1h30m", 5_400_000],
    ["250ms", 250],
    ["90", 90_000],
    ["0", 0],
    ["1.5s", 1500],
    ["-1", -1],
    ["-5m", -1],
  ])("%p is %p ms", (text, ms) => {
    expect(parseDuration(text)).toBe(ms);
  });

  test.each(["20y", "99999999999d", "1e300", "", "five", "5 minutes", "m5", "5m3"])(
    "refuses %p",
    (text) => {
      expect(() => parseDuration(text)).toThrow(/is not a duration|longer than ten years/);
    },
  );
});

describe("addresses", () => {
  test.each([
    ["localhost:12434", "http://localhost:12434"],
    ["https://host.example/", "https://host.example"],
    ["http://h:1/base/", "http://h:1/base"],
    ["", ""],
  ])("parseBaseUrl reads %p as %p", (text, url) => {
    expect(parseBaseUrl(text)).toBe(url);
  });

  test.each(["ftp://host", "http://", "::"])("parseBaseUrl refuses %p", (text) => {
    expect(() => parseBaseUrl(text)).toThrow("is not the address of a runner");
  });

  test.each(["-1", "65536", "", "12a"])("parsePort refuses %p", (text) => {
    expect(() => parsePort(text)).toThrow("is not a port");
  });
});

describe("parseRate", () => {
  test.each([
    ["0", 0],
    ["1500", 1500],
    ["10MB", 10_000_000],
    ["1.5MiB", 1_572_864],
    ["512k", 512_000],
    ["2 GiB/s", 2_147_483_648],
  ])("reads %p", (text, bytes) => {
    expect(parseRate(text)).toBe(bytes);
  });

  test.each(["", "fast", "-1", "10TB", "10 M B", "1e9"])("refuses %p", (text) => {
    expect(() => parseRate(text)).toThrow("is not a rate");
  });
});

describe("parseBodySize", () => {
  test.each([
    ["1MiB", 1_048_576],
    ["512MiB", 536_870_912],
    ["1 GB", 1_000_000_000],
    ["2000000", 2_000_000],
  ])("reads %p", (text, bytes) => {
    expect(parseBodySize(text)).toBe(bytes);
  });

  test.each(["", "0", "1", "big", "-1MiB", "2GiB", "1TB", "1e9"])("refuses %p", (text) => {
    expect(() => parseBodySize(text)).toThrow("is not a size of requests");
  });
});

describe("parseConnections", () => {
  test("from 1 to 64", () => {
    expect(parseConnections("64")).toBe(64);
    for (const text of ["0", "65", "-1", "8.5", "many"])
      expect(() => parseConnections(text)).toThrow("is not a number of connections");
  });
});

describe("insecure registries", () => {
  test.each([
    ["true", ["*"]],
    ["false", []],
    ["a.example:5000, b.example", ["a.example:5000", "b.example"]],
  ])("%p", (text, expected) => {
    const { insecureRegistries } = loadConfig("/nonexistent", { INSECURE_REGISTRY: text });
    expect(insecureRegistries.value).toEqual(expected);
  });
});

describe("withFlag", () => {
  const config = loadConfig("/nowhere/config.toml", { TUG_KEEP_ALIVE: "1m" });

  test("a flag wins over the environment, and says so", () => {
    const changed = withFlag(config, "keepAliveMs", { flag: "--keep-alive", text: "5s" });

    expect(changed.keepAliveMs).toEqual({ value: 5000, source: "--keep-alive" });
    expect(config.keepAliveMs).toEqual({ value: 60_000, source: "TUG_KEEP_ALIVE" });
  });

  test("one that was not given changes nothing", () => {
    expect(withFlag(config, "keepAliveMs", { flag: "--keep-alive", text: undefined })).toBe(config);
  });

  test("one that cannot be understood is named", () => {
    expect(() => withFlag(config, "maxWorkers", { flag: "--max-workers", text: "many" })).toThrow(
      "cannot read --max-workers",
    );
  });
});
