import { describe, expect, test } from "bun:test";
import { renameSync, writeFileSync } from "node:fs";
import { join, resolve as resolvePath } from "node:path";
import { AppError } from "../../src/errors.ts";
import type { AppDeps } from "../../src/server/deps.ts";
import { rememberResolved } from "../../src/server/resolved-models.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { fakeDeps, rejection } from "./fake-deps.ts";

const STRANGER = { trusted: false };

interface Setup extends AsyncDisposable {
  readonly asked: string[];
  readonly resolve: AppDeps["resolve"];
  /** As the store does it: another file under the same name. */
  changeIndex(): void;
}

async function setUp(): Promise<Setup> {
  const directory = await tempDir();
  const index = join(directory.path, "index.json");
  const asked: string[] = [];
  const deps = fakeDeps();
  const changeIndex = (): void => {
    writeFileSync(`${index}.new`, "{}");
    renameSync(`${index}.new`, index);
  };
  changeIndex();
  return {
    asked,
    changeIndex,
    resolve: rememberResolved((name, options) => {
      asked.push(name);
      return name.startsWith("unknown")
        ? Promise.reject(new AppError("model_not_found", "no"))
        : deps.resolve("pebble", options);
    }, index),
    [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose](),
  };
}

describe("rememberResolved", () => {
  test("resolved: a name is looked up once, also by callers at the same time", async () => {
    await using it = await setUp();

    const [one, two] = await Promise.all([
      it.resolve("pebble", STRANGER),
      it.resolve("pebble", STRANGER),
    ]);
    const three = await it.resolve("pebble", STRANGER);

    expect(it.asked).toEqual(["pebble"]);
    expect(two).toBe(one);
    expect(three).toBe(one);
  });

  test("resolved: a changed store is looked at again", async () => {
    await using it = await setUp();

    await it.resolve("pebble", STRANGER);
    it.changeIndex();
    await it.resolve("pebble", STRANGER);

    expect(it.asked).toEqual(["pebble", "pebble"]);
  });

  test("resolved: a failure is not remembered", async () => {
    await using it = await setUp();

    await rejection(it.resolve("unknown", STRANGER));
    await rejection(it.resolve("unknown", STRANGER));

    expect(it.asked).toEqual(["unknown", "unknown"]);
  });

  test("resolved: a file is looked at every time, and by whoever asks", async () => {
    await using it = await setUp();
    const path = resolvePath("/model.gguf");

    await it.resolve(path, STRANGER);
    await it.resolve(path, { trusted: true });

    expect(it.asked).toEqual([path, path]);
  });

  test("resolved: made-up names do not pile up", async () => {
    await using it = await setUp();

    await it.resolve("pebble", STRANGER);
    for (let index = 0; index < 256; index += 1) await it.resolve(`name-${index}`, STRANGER);
    await it.resolve("pebble", STRANGER);

    expect(it.asked.filter((name) => name === "pebble").length).toBe(2);
  });
});
