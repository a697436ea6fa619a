import { describe, expect, test } from "bun:test";
import { describeIf, isWindows } from "../helpers/test-if.ts";
import { join } from "node:path";
import { ask, askSecret, confirm } from "../../src/terminal/question.ts";
import { eventually } from "../helpers/eventually.ts";
import { memoryStream } from "./streams.ts";

const QUESTION = join(import.meta.dir, "../../src/terminal/question.ts");

/** @returns what the question came to, and all that was on the terminal */
async function answerWith(
  keys: string,
  question: "ask" | "askSecret" | "confirm" = "confirm",
): Promise<{ answer: string; output: string }> {
  const script = `
    import { ${question} } from "${QUESTION}";
    const options = { message: "Remove all?", flag: "--force" };
    const answer = await ${question}(options).catch((error) => error.code);
    process.stdout.write("got:" + Buffer.from(String(answer)).toString("hex") + "\\n");
  `;
  let output = "";
  const child = Bun.spawn([process.execPath, "-e", script], {
    terminal: {
      cols: 80,
      rows: 24,
      data: (_, bytes) => void (output += Buffer.from(bytes).toString()),
    },
  });
  await eventually(() => output.includes("Remove all?"));
  child.terminal?.write(keys);
  await child.exited;
  await eventually(() => /got:[0-9a-f]*\r?\n/.test(output));
  child.terminal?.close();
  const hex = /got:([0-9a-f]*)/.exec(output)?.[1] ?? "";
  return { answer: Buffer.from(hex, "hex").toString(), output };
}

describe("confirm", () => {
  test("question: a pipe is a usage error that names the flag", async () => {
    const input = { isTTY: false } as NodeJS.ReadStream;

    const options = { message: "Remove all?", flag: "--force", input, output: memoryStream() };

    expect(await confirm(options).catch((error: unknown) => error)).toMatchObject({
      code: "usage",
      hint: "Give `--force` to go ahead without the question.",
    });
  });
});

describeIf(!isWindows, "it needs a Unix terminal")("confirm at a terminal", () => {
  test.each([
    ["y", "true"],
    ["\r", "false"],
    ["\u0003", "cancelled"],
  ])("question: %j is %s", async (keys, expected) => {
    expect((await answerWith(keys)).answer).toBe(expected);
  });
});

describe("ask and askSecret", () => {
  test("question: a pipe is not asked for text either", async () => {
    const input = { isTTY: false } as NodeJS.ReadStream;
    const options = { message: "Who?", flag: "-u USER", input, output: memoryStream() };

    for (const question of [ask, askSecret]) {
      expect(await question(options).catch((error: unknown) => error)).toMatchObject({
        code: "usage",
        hint: "Give `-u USER` to answer it beforehand.",
      });
    }
  });
});

describeIf(!isWindows, "it needs a Unix terminal")("ask and askSecret at a terminal", () => {
  test("question: a line is the answer", async () => {
    expect((await answerWith("me\r", "ask")).answer).toBe("me");
    expect((await answerWith("\u0003", "ask")).answer).toBe("cancelled");
  });

  test("question: a secret is the answer and never on the screen", async () => {
    const { answer, output } = await answerWith("hunter2\r", "askSecret");

    expect(answer).toBe("hunter2");
    expect(output).not.toContain("hunter2");
    expect(output).not.toContain("▪▪");
    expect((await answerWith("\u0003", "askSecret")).answer).toBe("cancelled");
  });
});
