/** diffusers for real, where somebody wants to fetch its five gigabytes, or has them (`TUG_TEST_DIFFUSERS_PYTHON`). */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import OpenAI, { toFile } from "openai";
import { tinyDduf, tinyPipeline, toZip } from "../../backends/diffusers/tiny-pipeline.ts";
import { eventually } from "../helpers/eventually.ts";
import { writeFiles } from "../helpers/onnx-models.ts";
import { PYTHON_PROBLEM } from "../helpers/pypi.ts";
import { describeIf } from "../helpers/test-if.ts";
import { type TugHome, tugHome } from "../helpers/tug-home.ts";

const INSTALL_TIMEOUT_MS = 900_000;
const PYTHON = process.env["TUG_TEST_DIFFUSERS_PYTHON"];
const PROBLEM =
  PYTHON === undefined && process.env["TUG_TEST_LARGE"] === undefined
    ? "five gigabytes are fetched only with TUG_TEST_LARGE=1"
    : PYTHON_PROBLEM;
const SMALL = { size: "64x64" as never, num_inference_steps: 3 };

setDefaultTimeout(180_000);

describeIf(PROBLEM === undefined, PROBLEM ?? "")("diffusers", () => {
  let home: TugHome;
  beforeAll(async () => {
    home = await tugHome();
    const own = PYTHON === undefined ? [] : ["--python", PYTHON];
    await ok(["install-runner", "--backend", "diffusers", ...own]);
    await add("me/dduf", tinyDduf());
    await writeFiles(join(home.path, "pipeline"), tinyPipeline());
    await ok(["package", "--safetensors-dir", join(home.path, "pipeline"), "me/directory"]);
    await ok(["start-runner"]);
  }, INSTALL_TIMEOUT_MS);
  afterAll(async () => {
    await home[Symbol.asyncDispose]();
  });

  async function ok(args: readonly string[]): Promise<string> {
    const run = await home.tug(args, { timeoutMs: INSTALL_TIMEOUT_MS });
    if (run.exitCode !== 0) throw new Error(`\`tug ${args.join(" ")}\`:\n${run.stderr}`);
    return run.stdout;
  }

  async function add(name: string, dduf: Uint8Array): Promise<void> {
    const file = join(home.path, "packaged.dduf");
    await writeFile(file, dduf);
    await ok(["package", "--dduf", file, name]);
  }

  function openai(): OpenAI {
    return new OpenAI({ baseURL: `${home.url}/v1`, apiKey: "any", maxRetries: 0 });
  }

  async function draw(model: string, more: object = {}): Promise<readonly string[]> {
    const asked = { model, prompt: "a cat", ...SMALL, ...more, stream: false } as const;
    const { data = [] } = await openai().images.generate(asked);
    return data.map(({ b64_json: text = "" }) => text);
  }

  test.each(["me/dduf", "me/directory"])("%s: a seed is a picture", async (model) => {
    const [first, second] = await draw(model, { seed: 5, n: 2 });
    const [again] = await draw(model, { seed: 6 });
    const png = Buffer.from(first ?? "", "base64");

    expect(png.subarray(1, 4).toString()).toBe("PNG");
    expect([png.readUInt32BE(16), png.readUInt32BE(20)]).toEqual([64, 64]);
    expect(second).toBe(again);
    expect(first).not.toBe(second);
  });

  test("pictures are changed, and parts of them", async () => {
    const [picture = ""] = await draw("me/dduf", { seed: 1 });
    const image = await toFile(Buffer.from(picture, "base64"), "in.png");
    const edit = async (more: object): Promise<string | undefined> => {
      const asked = { model: "me/dduf", prompt: "a dog", image, ...more, stream: false } as const;
      return (await openai().images.edit(asked)).data?.[0]?.b64_json;
    };

    const changed = await edit({ seed: 1 });
    const partly = await edit({ seed: 1, mask: image });

    expect(new Set([picture, changed, partly, undefined]).size).toBe(4);
    expect(await edit({ seed: 1 })).toBe(changed);
  });

  test("a stream has previews, then the picture", async () => {
    const asked = { model: "me/dduf", prompt: "a", ...SMALL, num_inference_steps: 6 };
    const events = [];
    const more = { stream: true, partial_images: 2, output_format: "webp" } as const;
    for await (const event of await openai().images.generate({ ...asked, ...more }))
      events.push(event);

    expect(events.map(({ type }) => type)).toEqual([
      "image_generation.partial_image",
      "image_generation.partial_image",
      "image_generation.completed",
    ]);
    const last = Buffer.from(events.at(-1)?.b64_json ?? "", "base64");
    expect(last.subarray(8, 12).toString()).toBe("WEBP");
  });

  test("who leaves ends the drawing, and what comes after is drawn at once", async () => {
    const leaving = new AbortController();
    const large = { size: "1024x1024" as never, num_inference_steps: 150, n: 10 };
    const asked = { model: "me/dduf", prompt: "a", ...large, stream: false } as const;
    const answer = openai()
      .images.generate(asked, { signal: leaving.signal })
      .then(
        () => "answered",
        () => "ended",
      );
    await eventually(async () => {
      const [worker] = JSON.parse(await ok(["ps", "--json"])) as { in_use?: boolean }[];
      return worker?.in_use === true;
    });
    leaving.abort();

    expect(await answer).toBe("ended");
    // Ten pictures of a hundred and fifty steps would take minutes.
    expect(await draw("me/dduf", { seed: 1 })).toHaveLength(1);
  }, 60_000);

  test("what it does not draw is refused in its words", async () => {
    const body = { model: "me/dduf", prompt: "a", ...SMALL, background: "transparent" };
    const response = await fetch(`${home.url}/v1/images/generations`, {
      method: "POST",
      body: JSON.stringify(body),
    });

    expect(response.status).toBe(400);
    expect(await response.text()).toContain("`background` cannot be transparent");
  });

  const files = tinyPipeline();
  const index = JSON.parse(String(files["model_index.json"])) as Record<string, unknown>;
  const { "unet/diffusion_pytorch_model.safetensors": weights = "", ...weightless } = files;
  const withIndex = (more: object) => ({
    ...files,
    "model_index.json": JSON.stringify({ ...index, ...more }),
  });
  test.each([
    ["a pickle", { ...files, "unet/model.bin": "x" }, "a kind that a DDUF must not have"],
    ["code", { ...files, "unet/model.py": "x" }, "a kind that a DDUF must not have"],
    ["a path out of it", { ...files, "../x.json": "{}" }, "lies where none may"],
    ["no index", { "unet/config.json": "{}" }, "has no `model_index.json`"],
    ["a class of its own", withIndex({ unet: ["os", "system"] }), "code of its own"],
    ["no weights", weightless, "has no weights as safetensors"],
    [
      "half of its weights",
      { ...files, "unet/diffusion_pytorch_model.safetensors": weights.slice(0, 20_000) },
      "not where it should be",
    ],
  ])("a DDUF with %s is refused, and it is said why", async (what, made, message) => {
    const name = `me/bad-${what.replaceAll(/\W+/g, "-")}`;
    await add(name, toZip(made));

    const { exitCode, stderr } = await home.tug(["run", name, "a"], { timeoutMs: 120_000 });

    expect(exitCode).not.toBe(0);
    expect(stderr).toContain(message);
  });
});
