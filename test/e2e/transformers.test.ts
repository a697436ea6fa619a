/** PyTorch for real, where somebody wants to fetch its five gigabytes. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { expectedAnswers, QUESTION, SAFETENSORS } from "../helpers/pebble.ts";
import { PYTHON_PROBLEM } from "../helpers/pypi.ts";
import { describeIf } from "../helpers/test-if.ts";
import { tugHome } from "../helpers/tug-home.ts";

const MODEL = "me/pebble-st";
const INSTALL_TIMEOUT_MS = 900_000;
const PROBLEM =
  process.env["TUG_TEST_LARGE"] === undefined
    ? "five gigabytes are fetched only with TUG_TEST_LARGE=1"
    : PYTHON_PROBLEM;

setDefaultTimeout(INSTALL_TIMEOUT_MS);

describeIf(PROBLEM === undefined, PROBLEM ?? "")("transformers", () => {
  test("is installed from PyPI and answers, whole and in pieces", async () => {
    await using home = await tugHome();
    const installed = await home.tug(["install-runner", "--backend", "transformers"], {
      timeoutMs: INSTALL_TIMEOUT_MS,
    });
    const packaged = await home.tug(["package", "--safetensors-dir", SAFETENSORS, MODEL]);
    await home.tug(["start-runner"]);
    const ask = async (stream: boolean, more: object = {}): Promise<string> => {
      const response = await fetch(`${home.url}/engines/transformers/v1/chat/completions`, {
        method: "POST",
        // Fields that it would refuse are left out.
        body: JSON.stringify({
          model: MODEL,
          stream,
          top_k: 1,
          temperature: 0,
          keep_alive: "1m",
          messages: [{ role: "user", content: QUESTION }],
          ...more,
        }),
      });
      return response.text();
    };
    const calling = (await expectedAnswers()).find(({ tools }) => tools !== undefined);
    const { messages, tools } = calling ?? {};

    expect([installed.exitCode, packaged.exitCode]).toEqual([0, 0]);
    expect(await ask(false)).toContain("The capital of France is Paris.");
    expect(await ask(true)).toContain("data: [DONE]");
    for (const stream of [false, true]) {
      const answer = await ask(stream, { messages, tools });
      expect(answer).toContain('"finish_reason":"tool_calls"');
      expect(answer).toContain('"arguments":"{\\"city\\": \\"Paris\\"}"');
      expect(answer).not.toContain("<tool_call>");
    }
    expect((await home.tug(["explain", "--backend", "transformers", MODEL])).stdout).toContain(
      "transformers does not tell its settings",
    );
  });
});
