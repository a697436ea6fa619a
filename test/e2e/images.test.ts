/** Pictures through the whole program, drawn by an engine of config.toml: what diffusers does for real is tested beside. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import OpenAI, { toFile } from "openai";
import { tinyDduf, tinyPipeline } from "../../backends/diffusers/tiny-pipeline.ts";
import type { ExplainResult } from "../../src/api/settings.ts";
import { eventually } from "../helpers/eventually.ts";
import { writeFiles } from "../helpers/onnx-models.ts";
import { type TugHome, tugHome } from "../helpers/tug-home.ts";

setDefaultTimeout(60_000);

/** A picture is its request; a prompt of `for ever` is drawn until its client leaves. */
const ENGINE = `
const [socket, model] = process.argv.slice(2);
Bun.serve({ unix: socket, idleTimeout: 0, async fetch(request) {
  const { pathname } = new URL(request.url);
  if (request.method === "GET") return new Response("", { status: pathname === "/health" ? 200 : 404 });
  if (!pathname.startsWith("/v1/images/")) return Response.json({ error: { message: "no" } }, { status: 404 });
  const body = await request.json();
  if (body.prompt === "for ever") {
    console.error("drawing for ever");
    await new Promise((resolve) => request.signal.addEventListener("abort", resolve));
    console.error("the client left");
  }
  if (body.response_format !== "b64_json") return Response.json({ error: { message: "form" } }, { status: 400 });
  const picture = "\\x89PNG" + JSON.stringify({ ...body, pathname, model });
  const b64_json = Buffer.from(picture, "latin1").toString("base64");
  return Response.json({ created: 1, data: [{ b64_json, seed: body.seed ?? 42 }] });
} });
`;

let home: TugHome;
beforeAll(async () => {
  home = await tugHome();
  const script = join(home.path, "engine.ts");
  await writeFile(script, ENGINE);
  const command = JSON.stringify([process.execPath, script, "${SOCKET}", "${MODEL}"]);
  const modes = `["image-generation"]`;
  await writeFile(
    join(home.path, "config.toml"),
    `[engines.easel]\ncommand = ${command}\nformats = ["dduf", "diffusers"]\nmodes = ${modes}\n`,
  );
  await writeFile(join(home.path, "tiny.dduf"), tinyDduf());
  await writeFiles(join(home.path, "pipeline"), tinyPipeline());
  await mkdir(join(home.path, "work"));
  await ok(["package", "--dduf", join(home.path, "tiny.dduf"), "me/dduf"]);
  await ok(["package", "--safetensors-dir", join(home.path, "pipeline"), "me/directory"]);
  await ok(["start-runner"]);
}, 240_000);
afterAll(async () => {
  await home?.[Symbol.asyncDispose]();
});

async function ok(args: readonly string[]): Promise<string> {
  const { exitCode, stdout, stderr } = await home.tug(args, { cwd: join(home.path, "work") });
  if (exitCode !== 0) throw new Error(`\`tug ${args.join(" ")}\`:\n${stderr}`);
  return stdout;
}

function openai(): OpenAI {
  return new OpenAI({ baseURL: `${home.url}/v1`, apiKey: "any", maxRetries: 0 });
}

async function isLogged(what: string): Promise<boolean> {
  return (await ok(["logs", "--tail", "100"])).includes(what);
}

function ask(path: string, body: object): Promise<Response> {
  return fetch(`${home.url}${path}`, { method: "POST", body: JSON.stringify(body) });
}

async function nameDrawn(): Promise<string> {
  return (JSON.parse(await ok(["run", "me/dduf", "A cat!", "--json"])) as { file: string }).file;
}

/** What the picture says that it was asked for. */
function readPicture(data: Buffer): Record<string, unknown> {
  expect(data.subarray(0, 4).toString("latin1")).toBe("\x89PNG");
  return JSON.parse(data.subarray(4).toString("latin1")) as Record<string, unknown>;
}

describe("images", () => {
  test.each(["me/dduf", "me/directory"])("%s draws, and says what it is", async (model) => {
    const { data: [first] = [] } = await openai().images.generate({ model, prompt: "a cat" });

    const asked = readPicture(Buffer.from(first?.b64_json ?? "", "base64"));
    expect(asked).toMatchObject({ prompt: "a cat", pathname: "/v1/images/generations" });
    expect(await ok(["list"])).toContain("diffusers");
    const plan = JSON.parse(await ok(["explain", "--json", model])) as ExplainResult;
    expect(plan).toMatchObject({ mode: "image-generation" });
  });

  test("a URL is good until the runner leaves", async () => {
    const asked = { model: "me/dduf", prompt: "a", response_format: "url" } as const;
    const { data: [first] = [] } = await openai().images.generate(asked);

    expect(first?.url).toStartWith(`${home.url}/v1/images/files/`);
    const picture = await fetch(first?.url ?? "");
    expect(readPicture(Buffer.from(await picture.arrayBuffer()))).toMatchObject({ prompt: "a" });
    expect(await readdir(join(home.path, "run", "images"))).toHaveLength(1);

    await ok(["stop-runner"]);
    expect(await readdir(join(home.path, "run"))).not.toContain("images");
    await ok(["start-runner"]);
    expect((await fetch(first?.url ?? "")).status).toBe(404);
  });

  test("edits as a form", async () => {
    const { data: [first] = [] } = await openai().images.edit({
      model: "me/dduf",
      prompt: "a dog",
      image: await toFile(Buffer.from("in"), "in.png"),
    });

    const asked = readPicture(Buffer.from(first?.b64_json ?? "", "base64"));
    expect(asked).toMatchObject({ images: [Buffer.from("in").toString("base64")] });
  });

  test("who leaves ends the drawing", async () => {
    const leaving = new AbortController();
    const { signal } = leaving;
    const answer = openai()
      .images.generate({ model: "me/dduf", prompt: "for ever" }, { signal })
      .then(
        () => "answered",
        () => "ended",
      );

    await eventually(() => isLogged("drawing for ever"));
    leaving.abort();

    expect(await answer).toBe("ended");
    await eventually(() => isLogged("the client left"));
  });

  test("a chat with it, and pictures of a model that chats, are refused", async () => {
    const chat = await ask("/v1/chat/completions", { model: "me/directory", messages: [] });
    const picture = await ask("/v1/images/generations", { model: "pebble", prompt: "a" });

    expect(await chat.text()).toContain("`messages` must not be empty");
    const said = await ask("/v1/chat/completions", {
      model: "me/directory",
      messages: [{ role: "user", content: "a" }],
    });
    expect(await said.text()).toContain("no engine offers completion for diffusers models");
    expect(await picture.text()).toContain("no engine offers image-generation for gguf models");
  });
});

describe("tug run", () => {
  test("writes to who reads stdout", async () => {
    const stdout = await ok(["run", "me/dduf", "a cat", "--seed", "7"]);

    expect(stdout).toContain('"prompt":"a cat"');
    expect(stdout).toContain('"seed":7');
  });

  test("names the file in its object, and replaces none", async () => {
    expect([await nameDrawn(), await nameDrawn()]).toEqual(["a-cat-42.png", "a-cat-42-2.png"]);
  });

  test("--output, in the format of its extension; a picture in the prompt is changed", async () => {
    const work = join(home.path, "work");
    const png = Buffer.from(
      "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==",
      "base64",
    );
    await writeFile(join(work, "in.png"), png);

    await ok(["run", "me/dduf", "blue @./in.png", "--output", "out.webp"]);

    const asked = readPicture(await readFile(join(work, "out.webp")));
    expect(asked).toMatchObject({
      pathname: "/v1/images/edits",
      output_format: "webp",
      images: [png.toString("base64")],
    });
  });

  test.each([
    [["me/dduf", "a", "--output", "x.txt"], "its extension is no picture's"],
    [["me/dduf", "a", "--output", "none/x.png"], "cannot write `none/x.png`: ENOENT"],
    [["pebble", "a", "--output", "x.png"], "cannot write a picture with `pebble`"],
  ])("%j is refused", async (args, message) => {
    const { exitCode, stderr } = await home.tug(["run", ...args], { cwd: join(home.path, "work") });

    expect(exitCode).not.toBe(0);
    expect(stderr).toContain(message);
  });

  test("-d only loads it", async () => {
    await ok(["unload", "--all"]);
    await ok(["run", "-d", "me/dduf"]);

    const [worker] = JSON.parse(await ok(["ps", "--json"])) as { mode: string }[];
    expect(worker?.mode).toBe("image-generation");
  });
});
