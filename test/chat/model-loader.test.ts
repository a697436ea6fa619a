import { describe, expect, test } from "bun:test";
import type { LoadResult } from "../../src/api/engines.ts";
import type { ProgressListener } from "../../src/api/progress.ts";
import { ModelLoader } from "../../src/chat/model-loader.ts";
import { AppError } from "../../src/errors.ts";

const RESULT: LoadResult = { model_id: "sha256:0", backend: "fake", load_ms: 1 };
const EVENT = { type: "warning", message: "loading" } as const;

interface Attempt {
  readonly report: ProgressListener;
  readonly succeed: () => void;
  readonly fail: (error: Error) => void;
}

/** A loader whose loads end when the test says so. */
function scripted(): { loader: ModelLoader; attempts: Attempt[] } {
  const attempts: Attempt[] = [];
  const client = {
    load(_: unknown, { onProgress }: { onProgress: ProgressListener }): Promise<LoadResult> {
      const { promise, resolve, reject } = Promise.withResolvers<LoadResult>();
      attempts.push({ report: onProgress, succeed: () => resolve(RESULT), fail: reject });
      return promise;
    },
  };
  return { loader: new ModelLoader({ client, signal: new AbortController().signal }), attempts };
}

function nothing(): void {}

const { signal } = new AbortController();

describe("ModelLoader", () => {
  test("loader: who waits sees the newest event at once and those that follow", async () => {
    const { loader, attempts } = scripted();
    const seen: unknown[] = [];
    loader.start({ model: "m" });
    attempts[0]?.report({ ...EVENT, message: "before" });

    const waiting = loader.wait({ signal, onProgress: (event) => seen.push(event) });
    attempts[0]?.report(EVENT);
    attempts[0]?.succeed();
    await waiting;
    await loader.wait({ signal, onProgress: (event) => seen.push(event) });

    expect(seen).toEqual([{ ...EVENT, message: "before" }, EVENT]);
    expect(attempts).toHaveLength(1);
  });

  test("loader: after a failure the next one to wait loads anew", async () => {
    const { loader, attempts } = scripted();
    const failed = Promise.withResolvers<unknown>();
    loader.start({ model: "m" }, failed.resolve);
    attempts[0]?.fail(new AppError("worker_failed", "cannot load"));

    expect(await failed.promise).toMatchObject({ code: "worker_failed" });
    const waiting = loader.wait({ signal, onProgress: nothing });
    attempts[1]?.succeed();
    await waiting;

    expect(attempts).toHaveLength(2);
  });

  test("loader: an abort ends the waiting and not the load", async () => {
    const { loader, attempts } = scripted();
    const stop = new AbortController();
    loader.start({ model: "m" });

    const waiting = loader.wait({ signal: stop.signal, onProgress: nothing });
    stop.abort();
    const error = await waiting.catch((thrown: unknown) => thrown);
    attempts[0]?.succeed();
    await loader.wait({ signal, onProgress: nothing });

    expect(error).toMatchObject({ name: "AbortError" });
    expect(attempts).toHaveLength(1);
  });

  test("loader: after a reset the next one to wait loads with the new request", async () => {
    const { loader, attempts } = scripted();
    loader.start({ model: "m" });
    attempts[0]?.succeed();
    await loader.wait({ signal, onProgress: nothing });

    loader.reset({ model: "m", context_size: 1 });
    const waiting = loader.wait({ signal, onProgress: nothing });
    attempts[1]?.succeed();
    await waiting;

    expect(attempts).toHaveLength(2);
  });
});
