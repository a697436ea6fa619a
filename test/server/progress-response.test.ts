import { describe, expect, test } from "bun:test";
import type { Progress } from "../../src/api/progress.ts";
import { AppError } from "../../src/errors.ts";
import { progressResponse } from "../../src/server/progress-response.ts";

const NEVER = new AbortController().signal;

function progress(id: string, doneBytes: number): Progress {
  return { type: "progress", id, phase: "copying", done_bytes: doneBytes, total_bytes: 9 };
}

async function lines(response: Response): Promise<unknown[]> {
  return (await response.text())
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as unknown);
}

describe("progressResponse", () => {
  test("progress: events come before the result, which is last", async () => {
    const response = progressResponse(NEVER, ({ onProgress }) => {
      onProgress({ type: "warning", message: "old" });
      onProgress(progress("a", 1));
      return Promise.resolve({ ok: true });
    });

    expect(await lines(response)).toEqual([
      { type: "warning", message: "old" },
      progress("a", 1),
      { type: "success", result: { ok: true } },
    ]);
  });

  test("progress: of each thing only the newest state waits to be sent", async () => {
    const response = progressResponse(NEVER, ({ onProgress }) => {
      for (let done = 0; done <= 1000; done += 1) {
        onProgress(progress("a", done));
        onProgress(progress("b", done));
      }
      return Promise.resolve(null);
    });

    const sent = await lines(response);

    expect(sent.length).toBeLessThan(8);
    expect(sent.slice(-3)).toEqual([
      progress("a", 1000),
      progress("b", 1000),
      { type: "success", result: null },
    ]);
  });

  test("progress: the first event is sent while the work goes on", async () => {
    const goOn = Promise.withResolvers<null>();
    const response = progressResponse(NEVER, ({ onProgress }) => {
      onProgress(progress("a", 1));
      return goOn.promise;
    });

    const reader = response.body?.getReader();
    const first = await reader?.read();
    goOn.resolve(null);

    expect(JSON.parse(new TextDecoder().decode(first?.value))).toEqual(progress("a", 1));
  });

  test("progress: a failure is the last line, also one that was thrown at once", async () => {
    const response = progressResponse(NEVER, () => {
      throw new AppError("install_failed", "cannot install", { hint: "Try." });
    });

    expect(response.status).toBe(200);
    expect(await lines(response)).toEqual([
      {
        type: "error",
        error: { code: "install_failed", message: "cannot install", hint: "Try." },
      },
    ]);
  });

  test("progress: a reader that leaves stops the work, and later events are lost in peace", async () => {
    const stopped = Promise.withResolvers<void>();
    const response = progressResponse(NEVER, ({ signal, onProgress }) => {
      onProgress(progress("a", 1));
      return new Promise((resolve) => {
        signal.addEventListener("abort", () => {
          onProgress(progress("a", 2));
          stopped.resolve();
          resolve(null);
        });
      });
    });

    await response.body?.cancel();

    await stopped.promise;
  });

  test("progress: the request's own signal reaches the work", async () => {
    const client = new AbortController();
    const response = progressResponse(client.signal, async ({ signal }) => {
      client.abort();
      signal.throwIfAborted();
      return Promise.resolve(null);
    });

    expect(await lines(response)).toMatchObject([{ type: "error", error: { code: "cancelled" } }]);
  });
});
