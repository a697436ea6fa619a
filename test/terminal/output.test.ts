import { describe, expect, test } from "bun:test";
import { isWindows, testIf } from "../helpers/test-if.ts";
import { join } from "node:path";
import { openOutput } from "../../src/terminal/output.ts";
import { renderJson } from "../../src/terminal/json.ts";
import { memoryStream } from "./streams.ts";

const SOURCE = join(import.meta.dir, "../../src/terminal");

describe("openOutput", () => {
  test("output: a stream has one output", () => {
    const stream = memoryStream();

    expect(openOutput(stream)).toBe(openOutput(stream));
  });

  test("output: a reader that left ends it quietly", async () => {
    const output = openOutput(memoryStream({ failWith: "EPIPE" }));

    expect(await output.write("a")).toBe(false);
    expect(output.closed.aborted).toBe(true);
    expect(await output.write("b")).toBe(false);
  });

  test("output: any other failure is thrown", async () => {
    const output = openOutput(memoryStream({ failWith: "ENOSPC" }));

    expect(await output.write("a").catch((error: unknown) => error)).toMatchObject({
      code: "ENOSPC",
    });
    expect(output.closed.aborted).toBe(false);
  });

  testIf(!isWindows, "Windows works otherwise")(
    "output: `| head` ends a program with 0 and in silence",
    async () => {
      const script = `
      import { openOutput } from "${SOURCE}/output.ts";
      const output = openOutput();
      while (await output.write("line\\n".repeat(1000)));
      process.exitCode = output.closed.aborted ? 0 : 9;
    `;
      const command = 'set -o pipefail; "$0" -e "$1" | head -n 1';
      const child = Bun.spawn(["bash", "-c", command, process.execPath, script], {
        stderr: "pipe",
      });

      expect(await child.stdout.text()).toBe("line\n");
      expect(await child.stderr.text()).toBe("");
      expect(await child.exited).toBe(0);
    },
  );

  testIf(!isWindows, "Windows works otherwise")(
    "output: a slow reader slows the writer down",
    async () => {
      const script = `
      import { openOutput } from "${SOURCE}/output.ts";
      const output = openOutput();
      for (let count = 0; count < 64; count += 1) {
        await output.write("x".repeat(1 << 20));
        process.stderr.write(".");
      }
    `;
      const child = Bun.spawn([process.execPath, "-e", script], { stderr: "pipe" });
      const reader = child.stdout.getReader();

      const first = await reader.read();
      const dots = child.stderr.text();
      child.kill();

      expect(first.value?.length).toBeGreaterThan(0);
      expect((await dots).length).toBeLessThan(64);
    },
  );
});

describe("renderJson", () => {
  test("json: one document with a newline, null for nothing", () => {
    expect(renderJson({ b: 1, a: [] })).toBe('{\n  "b": 1,\n  "a": []\n}\n');
    expect(renderJson(undefined)).toBe("null\n");
  });
});
