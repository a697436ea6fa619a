import { describe, expect, test } from "bun:test";
import { getPriority } from "node:os";
import type { PullResult } from "../../src/api/models.ts";
import type { ProgressEvent } from "../../src/api/progress.ts";
import type { PullProcess } from "../../src/server/pull-jobs.ts";
import { spawnPull } from "../../src/server/pull-process.ts";

const TOKEN = "secret-token";

/** A child that runs this script; `request` is what it got, `say` writes an event. */
function child(script: string, env: Record<string, string> = {}): PullProcess {
  const source = `
    const say = (event) => process.stdout.write(JSON.stringify(event) + "\\n");
    const reader = Bun.stdin.stream().getReader();
    const request = JSON.parse(new TextDecoder().decode((await reader.read()).value));
    ${script}
  `;
  return spawnPull(
    { command: [process.execPath, "-e", source], env: { PATH: process.env["PATH"], ...env } },
    { from: "m", "bearer-token": TOKEN },
  );
}

const all = (process: PullProcess): Promise<ProgressEvent<PullResult>[]> =>
  Array.fromAsync(process.events);

describe("spawnPull", () => {
  test("pulls: the request comes by stdin, and nowhere else", async () => {
    const puller = child(`
      say({ type: "warning", message: JSON.stringify(request) });
      say({ type: "warning", message: JSON.stringify([process.argv, process.env]) });
      process.exit(0);
    `);

    const [request, visible] = await all(puller);

    expect(request).toEqual({
      type: "warning",
      message: JSON.stringify({ from: "m", "bearer-token": TOKEN }),
    });
    expect(JSON.stringify(visible)).not.toContain(TOKEN);
    expect(await puller.ended).toBe("its process left with 0");
  });

  test("pulls: a child that dies before it hears the request is only a pull that failed", async () => {
    // More than a pipe holds: the writing goes on when the reader is gone.
    const request = { from: "m", "bearer-token": "x".repeat(500_000) };
    const puller = spawnPull(
      { command: [process.execPath, "-e", "process.exit(3)"], env: {} },
      request,
    );

    expect(await all(puller)).toEqual([]);
    expect(await puller.ended).toBe("its process left with 3");
  });

  test("pulls: it runs at a lower priority, without what steers the runner's own Bun", async () => {
    const puller = child(
      `say({ type: "warning", message: String(process.env.BUN_CONFIG_MAX_HTTP_REQUESTS) });
       await new Promise(() => setTimeout(() => {}, 60_000));`,
      { BUN_CONFIG_MAX_HTTP_REQUESTS: "16384" },
    );

    const first = await puller.events[Symbol.asyncIterator]().next();
    const priority = getPriority(puller.pid);
    puller.kill("SIGKILL");

    expect(first.value).toEqual({ type: "warning", message: "undefined" });
    expect(priority).toBe(10);
    expect(await puller.ended).toBe("its process was ended by SIGKILL");
  });

  test("pulls: its last words on stderr are part of how it ended", async () => {
    const puller = child(`process.stderr.write("first\\nout of luck\\n"); process.exit(3);`);

    expect(await all(puller)).toEqual([]);
    expect(await puller.ended).toBe("its process left with 3: out of luck");
  });

  test.each([
    ["no JSON", `process.stdout.write("hello\\n")`],
    ["JSON of something else", `process.stdout.write("[1]\\n")`],
    ["a line without an end", `process.stdout.write("x".repeat(1_100_000))`],
  ])("pulls: %s is no progress", async (_, script) => {
    const puller = child(`${script}; await new Promise(() => setTimeout(() => {}, 60_000));`);

    const thrown = await all(puller).catch((error: unknown) => error);
    puller.kill("SIGKILL");
    await puller.ended;

    expect((thrown as Error).message).toContain("something that is no progress");
  });
});
