import { describe, expect, test } from "bun:test";
import { stat } from "node:fs/promises";
import { join } from "node:path";

import { AppError } from "../../src/errors.ts";
import { readOwnModels } from "../../src/runtime/custom-models.ts";
import { toListed, toRunnable, withOwnModels } from "../../src/server/own-models.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { failureOf } from "../runtime/installer/failure-of.ts";

const THING = { name: "docker.io/me/thing:latest", engine: "echo" };
const TABLE = { command: ["a", "${PORT}"], models: ["me/thing"] };

/** A store with one model, `here`. */
function resolve(name: string): Promise<string> {
  if (name === "here") return Promise.resolve("of the store");
  return Promise.reject(new AppError("model_not_found", "it is not there"));
}

describe("withOwnModels", () => {
  const find = withOwnModels(
    () => Promise.resolve([THING]),
    resolve,
    ({ engine }, name) => `${name} of ${engine}`,
  );

  test("own models: found by every way to write their names", async () => {
    const names = ["me/thing", "me/thing:latest", "ME/Thing", "docker.io/me/thing"];

    expect(await Promise.all(names.map((name) => find(name)))).toEqual(
      names.map((name) => `${name} of echo`),
    );
  });

  test("own models: found by their ids, and another's id is nobody's", async () => {
    const other = `sha256:${"0".repeat(64)}`;

    expect(await find(toListed(THING).id)).toEndWith(" of echo");
    expect(await failureOf(find(other))).toMatchObject({ message: "it is not there" });
  });

  test("own models: nobody's name stays nobody's, and what is in the store wins", async () => {
    const owning = withOwnModels(
      () => Promise.reject(new Error("it is not asked")),
      resolve,
      () => "of the engine",
    );

    expect(await owning("here")).toBe("of the store");
    expect(await failureOf(find("me/thing:v2"))).toMatchObject({ message: "it is not there" });
    expect(await failureOf(find("me/other"))).toMatchObject({ message: "it is not there" });
  });

  test("own models: other failures of the store are told as they are", async () => {
    const broken = withOwnModels(
      () => Promise.resolve([THING]),
      () => Promise.reject(new AppError("forbidden", "no")),
      () => "of the engine",
    );

    expect(await failureOf(broken("me/thing"))).toMatchObject({ code: "forbidden" });
  });

  test("own models: a file that cannot be understood is told to who asks for what is not in the store", async () => {
    const tables = { echo: { ...TABLE, models: "me/thing" } };
    const wrong = withOwnModels(
      async () => readOwnModels(tables),
      resolve,
      () => "",
    );

    expect(await wrong("here")).toBe("of the store");
    expect(await failureOf(wrong("me/thing"))).toMatchObject({ code: "usage" });
  });
});

describe("an engine's own model", () => {
  test("own models: those of all engines that have some", () => {
    const tables = { echo: TABLE, other: { command: "a ${PORT}", formats: ["x"] }, mlx: {} };

    expect(readOwnModels(tables)).toEqual([THING]);
  });

  test("own models: it has no files, but a directory to name", async () => {
    await using directory = await tempDir();
    const empty = join(directory.path, "cache", "no-files");
    const model = toRunnable(THING, "me/thing", empty);

    await using bundle = await model.openBundle(new AbortController().signal);

    expect(model).toMatchObject({ name: "me/thing", format: "engine:echo", weightBytes: 0 });
    expect(bundle).toMatchObject({ directory: empty, model: empty });
    expect((await stat(empty)).isDirectory()).toBe(true);
    expect(model.id).toBe(toListed(THING).id);
    expect(toListed({ ...THING, engine: "other" }).id).not.toBe(model.id);
  });
});
