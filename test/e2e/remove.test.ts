import { expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import type { Model } from "../../src/api/models.ts";
import { eventually } from "../helpers/eventually.ts";
import { enginesOf } from "../helpers/processes.ts";
import { writeRandomModel } from "../helpers/random-model.ts";
import { type TugHome, tugHome } from "../helpers/tug-home.ts";

setDefaultTimeout(120_000);

/** Some seconds of answer: the model is large enough to be slow, and is not allowed to stop. */
const TOKENS = 300;
const NAME = "me/slow";

async function homeWithModel(): Promise<TugHome> {
  const home = await tugHome({ engine: true });
  const path = join(home.path, "slow.gguf");
  const shape = { layers: 6, embedding: 1024, heads: 8, feedForward: 2048, context: 2048 };
  await writeRandomModel(path, { ...shape, vocabulary: 4096 });
  expect(await home.tug(["package", "--gguf", path, NAME])).toMatchObject({ exitCode: 0 });
  return home;
}

function ask({ url }: TugHome, more: object = {}): Promise<Response> {
  return fetch(`${url}/v1/completions`, {
    method: "POST",
    body: JSON.stringify({ model: NAME, prompt: "a b c", ignore_eos: true, ...more }),
  });
}

async function models(home: TugHome): Promise<string[]> {
  const { stdout } = await home.tug(["list", "--json"]);
  return (JSON.parse(stdout) as Model[]).flatMap(({ tags }) => tags);
}

async function codeOf(response: Response): Promise<string> {
  const { error } = (await response.json()) as { readonly error: { readonly code: string } };
  return error.code;
}

test("rm -f: an answer that is being given is finished, nobody else gets the model, nothing is left", async () => {
  await using home = await homeWithModel();
  await home.tug(["start-runner"]);
  const streaming = await ask(home, { stream: true, max_tokens: TOKENS });
  const reader = streaming.body?.pipeThrough(new TextDecoderStream()).getReader();
  let text = (await reader?.read())?.value ?? "";

  const kept = await home.tug(["rm", NAME]);
  const removing = home.tug(["rm", "-f", NAME]);
  // From some moment on the model is refused: until then a short answer is given.
  const refused = await eventually(async () => {
    const response = await ask(home, { max_tokens: 1 });
    return response.status === 200 ? void (await response.text()) : codeOf(response);
  });
  for (let part = await reader?.read(); part?.done === false; part = await reader?.read())
    text += part.value;
  const removed = await removing;

  expect(kept.exitCode).toBe(1);
  expect(kept.stderr).toContain("is in use");
  expect(streaming.status).toBe(200);
  expect(text).toContain('"finish_reason":"length"');
  expect(text).toEndWith("data: [DONE]\n\n");
  expect(["conflict", "model_not_found"]).toContain(refused ?? "nothing");
  expect(removed).toMatchObject({ exitCode: 0 });
  expect(removed.stdout).toContain("Deleted: sha256:");
  expect(await models(home)).toEqual([]);
  expect(await enginesOf(home.path)).toEqual([]);
  expect(await codeOf(await ask(home))).toBe("model_not_found");
});

test("rm -f: while requests come and the model loads, each ends with an answer or a reason", async () => {
  await using home = await homeWithModel();
  await home.tug(["start-runner"]);
  const wave = (): Promise<Response>[] =>
    Array.from({ length: 6 }, () => ask(home, { max_tokens: 2 }));

  const first = wave();
  await eventually(async () => {
    const { stdout } = await home.tug(["ps", "--json"]);
    return (JSON.parse(stdout) as unknown[]).length > 0;
  });
  const removing = home.tug(["rm", "-f", NAME]);
  const answers = await Promise.all([...first, ...wave()]);
  const removed = await removing;

  for (const answer of answers) {
    if (answer.status === 200) expect(await answer.json()).toHaveProperty("choices");
    else expect(["conflict", "model_not_found"]).toContain(await codeOf(answer));
  }
  expect(removed).toMatchObject({ exitCode: 0 });
  expect(await models(home)).toEqual([]);
  await eventually(async () => (await enginesOf(home.path)).length === 0);
  expect((await home.tug(["status"])).exitCode).toBe(0);
});
