import { describe, expect, test } from "bun:test";
import { join } from "node:path";

const MODULE = join(import.meta.dir, "../../src/commands/piped-input.ts");

/** Runs `readPipedInput` in a process of its own, whose stdin is fed by `feed`. */
async function read(
  wait: "end" | "briefly",
  feed: (stdin: Bun.FileSink) => void | Promise<void>,
): Promise<unknown> {
  const code = `
    import { readPipedInput } from ${JSON.stringify(MODULE)};
    const text = await readPipedInput({ wait: "${wait}", signal: new AbortController().signal });
    console.log(JSON.stringify(text ?? null));
    process.exit(0);`;
  const child = Bun.spawn([process.execPath, "-e", code], {
    stdin: "pipe",
    stdout: "pipe",
    stderr: "inherit",
  });
  await feed(child.stdin);
  const text = await new Response(child.stdout).text();
  await child.exited;
  return JSON.parse(text);
}

describe("readPipedInput", () => {
  test("reads to the end once something has come, however long the rest takes", async () => {
    const text = await read("briefly", async (stdin) => {
      void stdin.write("one ");
      await stdin.flush();
      await Bun.sleep(1300); // longer than the silence that is borne before the first byte
      void stdin.write("two\n");
      await stdin.end();
    });

    expect(text).toBe("one two");
  });

  test("gives up on a stdin that is open but silent", async () => {
    expect(await read("briefly", () => {})).toBeNull();
  });

  test("takes a closed stdin as empty", async () => {
    expect(await read("briefly", (stdin) => void stdin.end())).toBe("");
  });

  test("waits for the end if the end is what was asked for", async () => {
    const text = await read("end", async (stdin) => {
      await Bun.sleep(1300); // longer than the silence that is borne otherwise
      void stdin.write("late");
      await stdin.end();
    });

    expect(text).toBe("late");
  });
});
