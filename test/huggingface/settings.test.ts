import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { expect, test } from "bun:test";
import { findHuggingFaceEndpoint, findHuggingFaceToken } from "../../src/huggingface/settings.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { failureOf } from "./failure-of.ts";

async function put(path: string, text: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, text);
}

test("the environment first, then the file of the tools", async () => {
  await using directory = await tempDir();
  const home = directory.path;
  expect(findHuggingFaceToken({ env: {}, home })).toBeUndefined();
  await put(join(home, ".cache/huggingface/token"), "hf_cache\n");
  await put(join(home, "xdg/huggingface/token"), "hf_xdg");
  await put(join(home, "hf/token"), "hf_home");
  await put(join(home, "elsewhere"), "hf_path");
  const env = {
    HF_TOKEN: " hf_first ",
    HUGGING_FACE_HUB_TOKEN: "hf_second",
    HF_TOKEN_PATH: join(home, "elsewhere"),
    HF_HOME: "~/hf",
    XDG_CACHE_HOME: join(home, "xdg"),
  };
  const names = Object.keys(env) as (keyof typeof env)[];
  const left = [0, 1, 2, 3, 4, 5].map((count) =>
    Object.fromEntries(names.slice(count).map((name) => [name, env[name]])),
  );
  expect(left.map((some) => findHuggingFaceToken({ env: some, home }))).toEqual([
    "hf_first",
    "hf_second",
    "hf_path",
    "hf_home",
    "hf_xdg",
    "hf_cache",
  ]);
  expect(findHuggingFaceToken({ env: { HF_TOKEN: "" }, home })).toBe("hf_cache");
});

test("what is no file, empty or too large is no token", async () => {
  await using directory = await tempDir();
  const find = (name: string): string | undefined =>
    findHuggingFaceToken({ env: { HF_TOKEN_PATH: join(directory.path, name) }, home: "/" });
  await put(join(directory.path, "empty"), "\n");
  await put(join(directory.path, "large"), "x".repeat(10_000));
  expect([find("empty"), find("large"), find("."), find("none"), find("empty/x")]).toEqual(
    Array.from({ length: 5 }, () => undefined),
  );
  Bun.spawnSync(["mkfifo", join(directory.path, "pipe")]);
  expect(find("pipe")).toBeUndefined();
});

test.each(["two words", "line\nbreak", "ümlaut", "x".repeat(10_000)])(
  "%p is refused without being shown",
  async (token) => {
    const failure = await failureOf(() =>
      findHuggingFaceToken({ env: { HF_TOKEN: token }, home: "/" }),
    );
    expect(failure.code).toBe("usage");
    expect(failure.message).toBe("cannot use the Hugging Face token in HF_TOKEN: it is no token");
  },
);

test.each([
  [undefined, "https://huggingface.co"],
  ["", "https://huggingface.co"],
  ["http://127.0.0.1:8080/", "http://127.0.0.1:8080"],
  ["https://example.com/mirror//", "https://example.com/mirror"],
])("HF_ENDPOINT %p is %p", (text, expected) => {
  expect(findHuggingFaceEndpoint({ HF_ENDPOINT: text })).toBe(expected);
});

test.each([
  "example.com",
  "ftp://example.com",
  "https://me:pw@example.com",
  "https://x/?a=b",
  "https://x/#y",
])("HF_ENDPOINT %p is refused", async (text) => {
  expect((await failureOf(() => findHuggingFaceEndpoint({ HF_ENDPOINT: text }))).code).toBe(
    "usage",
  );
});
