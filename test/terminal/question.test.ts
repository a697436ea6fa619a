import { describe, expect, test } from "bun:test";
import { describeIf, isWindows } from "../helpers/test-if.ts";
import { join } from "node:path";
import { confirm } from "../../src/terminal/question.ts";
import { eventually } from "../helpers/eventually.ts";
import { memoryStream } from "./streams.ts";

const QUESTION = join(import.meta.dir, "../../src/terminal/question.ts");
const SCRIPT = `
  import { confirm } from "${QUESTION}";
  const answer = await confirm({ message: "Remove all?", flag: "--force" }).catch((error) => error.code);
  process.stdout.write("got:" + answer + "\\n");
`;

async function answerWith(keys: string): Promise<string> {
  let output = "";
  const child = Bun.spawn([process.execPath, "-e", SCRIPT], {
    terminal: {
      cols: 80,
      rows: 24,
      data: (_, bytes) => void (output += Buffer.from(bytes).toString()),
    },
  });
  await eventually(() => output.includes("Remove all?"));
  child.terminal?.write(keys);
  await child.exited;
  await eventually(() => output.includes("got:"));
  child.terminal?.close();
  return /got:(\S+)/.exec(output)?.[1] ?? "";
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
    expect(await answerWith(keys)).toBe(expected);
  });
});
