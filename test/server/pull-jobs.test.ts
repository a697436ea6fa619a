import { describe, expect, test } from "bun:test";
import type { PullRequest, PullResult } from "../../src/api/models.ts";
import type { Progress, ProgressEvent, Warning } from "../../src/api/progress.ts";
import type { AppError } from "../../src/errors.ts";
import { type PullProcess, PullJobs } from "../../src/server/pull-jobs.ts";
import { eventually } from "../helpers/eventually.ts";

const RESULT: PullResult = {
  reference: "docker.io/ai/smollm2:latest",
  id: `sha256:${"a".repeat(64)}`,
  size_bytes: 10,
  fetched_bytes: 10,
  up_to_date: false,
};

/** A process in the hands of the test. */
class FakeProcess implements PullProcess {
  readonly pid = 1;
  readonly request: PullRequest;
  readonly killed: string[] = [];
  readonly events: ReadableStream<ProgressEvent<PullResult>>;
  readonly ended: Promise<string>;
  /** Ends on SIGTERM, as a pull does; else only on SIGKILL. */
  isPolite = true;
  readonly #end: (how: string) => void;
  #controller: ReadableStreamDefaultController<ProgressEvent<PullResult>> | undefined;

  constructor(request: PullRequest) {
    this.request = request;
    const { promise, resolve } = Promise.withResolvers<string>();
    this.ended = promise;
    this.#end = resolve;
    this.events = new ReadableStream({
      start: (controller) => void (this.#controller = controller),
    });
  }

  say(event: ProgressEvent<PullResult>): void {
    this.#controller?.enqueue(event);
  }

  progress(id: string, done: number | null, total: number | null): void {
    const bytes = { done_bytes: done, total_bytes: total };
    this.say({ type: "progress", id, phase: "downloading", ...bytes });
  }

  /** Ends, after a last word if there is one. */
  end(last?: ProgressEvent<PullResult>, how = "its process left with 1"): void {
    if (last !== undefined) this.say(last);
    this.#controller?.close();
    this.#controller = undefined;
    this.#end(how);
  }

  succeed(): void {
    this.end({ type: "success", result: RESULT });
  }

  garble(): void {
    this.#controller?.error(new Error("no JSON"));
  }

  kill(signal: "SIGTERM" | "SIGKILL"): void {
    this.killed.push(signal);
    if (signal === "SIGKILL" || this.isPolite) {
      if (this.#controller === undefined) this.#end("its process was ended by SIGKILL");
      else this.end(undefined, `its process was ended by ${signal}`);
    }
  }
}

function bench(options: { killAfterMs?: number } = {}): {
  jobs: PullJobs;
  processes: FakeProcess[];
} {
  const processes: FakeProcess[] = [];
  const jobs = new PullJobs({
    spawn: (request) => {
      const child = new FakeProcess(request);
      processes.push(child);
      return child;
    },
    ...options,
  });
  return { jobs, processes };
}

function follower(): {
  options: { signal: AbortSignal; onProgress: (event: Progress | Warning) => void };
  events: (Progress | Warning)[];
  leave(): void;
} {
  const leaving = new AbortController();
  const events: (Progress | Warning)[] = [];
  return {
    options: { signal: leaving.signal, onProgress: (event) => void events.push(event) },
    events,
    leave: () => leaving.abort(),
  };
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  const thrown = await work.catch((error: unknown) => error);
  return (thrown as AppError).code;
}

describe("PullJobs", () => {
  test("pulls: progress is relayed, the outcome is the pull's, and it is remembered", async () => {
    const { jobs, processes } = bench();
    const one = follower();

    const result = jobs.pull({ from: "smollm2" }, one.options);
    processes[0]?.progress("a", 5, 10);
    processes[0]?.say({ type: "warning", message: "odd" });
    processes[0]?.succeed();

    expect(await result).toEqual(RESULT);
    expect(one.events.map(({ type }) => type)).toEqual(["progress", "warning"]);
    expect(jobs.list()).toMatchObject([
      { model: "smollm2", state: "done", done_bytes: 5, total_bytes: 10, error: null },
    ]);
    expect(jobs.busy).toBe(false);
  });

  test("pulls: two who want the same share one process, and the second hears how far it is", async () => {
    const { jobs, processes } = bench();
    const [one, two] = [follower(), follower()];

    const first = jobs.pull({ from: "smollm2" }, one.options);
    processes[0]?.progress("a", 1, 10);
    processes[0]?.progress("a", 5, 10);
    await eventually(() => one.events.length === 2);
    const second = jobs.pull({ from: "docker.io/ai/smollm2:latest" }, two.options);
    expect(two.events).toMatchObject([{ id: "a", done_bytes: 5 }]);
    processes[0]?.succeed();

    expect(await Promise.all([first, second])).toEqual([RESULT, RESULT]);
    expect(processes).toHaveLength(1);
  });

  test.each([
    ["another token", { "bearer-token": "x" }],
    ["another platform", { platform: "linux/arm64" }],
    ["another way", { insecure: true }],
    ["another model", { from: "other" }],
  ])("pulls: %s is another pull", async (_, difference) => {
    const { jobs, processes } = bench();

    jobs.detach({ from: "smollm2" });
    jobs.detach({ from: "smollm2", ...difference });

    expect(processes).toHaveLength(2);
    await jobs.close();
  });

  test("pulls: it is cancelled when the last one who waits leaves, not before", async () => {
    const { jobs, processes } = bench();
    const [one, two] = [follower(), follower()];
    const first = jobs.pull({ from: "m" }, one.options);
    const second = jobs.pull({ from: "m" }, two.options);

    one.leave();
    expect(await codeOf(first)).toBe("cancelled");
    expect(processes[0]?.killed).toEqual([]);
    two.leave();
    expect(await codeOf(second)).toBe("cancelled");

    expect(processes[0]?.killed).toEqual(["SIGTERM"]);
    await eventually(() => jobs.list()[0]?.state === "cancelled");
  });

  test("pulls: a detached one goes on without anybody", async () => {
    const { jobs, processes } = bench();
    const one = follower();
    const { id, state } = jobs.detach({ from: "m" });
    const followed = jobs.pull({ from: "m" }, one.options);

    one.leave();
    expect(await codeOf(followed)).toBe("cancelled");
    expect(state).toBe("running");
    expect(processes[0]?.killed).toEqual([]);
    processes[0]?.succeed();

    await eventually(() => jobs.list()[0]?.state === "done");
    expect(jobs.list()[0]?.id).toBe(id);
  });

  test("pulls: cancelling waits for the end; one that does not listen is killed", async () => {
    const { jobs, processes } = bench({ killAfterMs: 1 });
    const { id } = jobs.detach({ from: "m" });
    const child = processes[0] as FakeProcess;
    child.isPolite = false;

    const job = await jobs.cancel(id);

    expect(child.killed).toEqual(["SIGTERM", "SIGKILL"]);
    expect(job).toMatchObject({ state: "cancelled", error: { code: "cancelled" } });
    // Once more is no mistake, and does nothing.
    expect((await jobs.cancel(id)).state).toBe("cancelled");
    expect(child.killed).toHaveLength(2);
  });

  test("pulls: whoever comes while one is being cancelled gets a new one", async () => {
    const { jobs, processes } = bench();
    const { id } = jobs.detach({ from: "m" });
    (processes[0] as FakeProcess).isPolite = false;

    const cancelled = jobs.cancel(id);
    jobs.detach({ from: "m" });
    processes[0]?.end();

    expect((await cancelled).state).toBe("cancelled");
    expect(processes).toHaveLength(2);
    await jobs.close();
  });

  test("pulls: a failure keeps its code and its hint", async () => {
    const { jobs, processes } = bench();

    const failed = jobs.pull({ from: "m" }, follower().options);
    const error = {
      code: "not_found",
      message: "no such model",
      hint: "Look.",
      details: {},
    } as const;
    processes[0]?.end({ type: "error", error });

    expect(await codeOf(failed)).toBe("not_found");
    expect(jobs.list()).toMatchObject([{ state: "failed", error }]);
  });

  test("pulls: a process that ends without a word, or with nonsense, is a failure", async () => {
    const { jobs, processes } = bench();

    const silent = jobs.pull({ from: "silent" }, follower().options);
    processes[0]?.end(undefined, "its process was ended by SIGSEGV");
    const garbled = jobs.pull({ from: "garbled" }, follower().options);
    processes[1]?.garble();

    const error = (await silent.catch((thrown: unknown) => thrown)) as AppError;
    expect(error.message).toBe("cannot pull `silent`: its process was ended by SIGSEGV");
    expect(await codeOf(garbled)).toBe("internal");
    expect(processes[1]?.killed).toEqual(["SIGKILL"]);
  });

  test("pulls: the total is known when all parts are", async () => {
    const { jobs, processes } = bench();
    jobs.detach({ from: "m" });

    processes[0]?.progress("list", null, null);
    processes[0]?.progress("a", 5, 10);
    processes[0]?.progress("b", 1, null);
    await eventually(() => jobs.list()[0]?.done_bytes === 6);
    expect(jobs.list()[0]?.total_bytes).toBeNull();
    processes[0]?.progress("b", 2, 4);

    await eventually(() => jobs.list()[0]?.total_bytes === 14);
    await jobs.close();
  });

  test("pulls: there is a bound to how many run, and to how many are remembered", async () => {
    const { jobs, processes } = bench();
    for (let n = 0; n < 16; n += 1) jobs.detach({ from: `m${n}` });

    expect(() => jobs.detach({ from: "one-more" })).toThrow("16 pulls are running");
    // The same as one of them is not one more.
    jobs.detach({ from: "m3" });
    for (const child of processes) child.succeed();
    await eventually(() => !jobs.busy);
    for (let n = 0; n < 40; n += 1) {
      jobs.detach({ from: `n${n}` });
      processes.at(-1)?.succeed();
      await eventually(() => !jobs.busy);
    }

    expect(jobs.list()).toHaveLength(50);
    expect(jobs.list()[0]?.model).toBe("n39");
    expect(jobs.list().some(({ model }) => model === "m0")).toBe(false);
  });

  test("pulls: running ones are listed first", async () => {
    const { jobs, processes } = bench();
    jobs.detach({ from: "old" });
    jobs.detach({ from: "new" });
    processes[1]?.succeed();
    await eventually(() => jobs.list()[1]?.state === "done");

    expect(jobs.list().map(({ model }) => model)).toEqual(["old", "new"]);
    await jobs.close();
  });

  test("pulls: closing cancels all and takes no more", async () => {
    const { jobs } = bench();
    jobs.detach({ from: "a" });
    jobs.detach({ from: "b" });

    await jobs.close();

    expect(jobs.list().map(({ state }) => state)).toEqual(["cancelled", "cancelled"]);
    expect(() => jobs.detach({ from: "c" })).toThrow("the runner is stopping");
  });

  test("pulls: an unknown id is not found, and whoever has left already starts nothing", async () => {
    const { jobs, processes } = bench();

    expect(await codeOf(jobs.cancel("nothing"))).toBe("not_found");
    const options = { signal: AbortSignal.abort(), onProgress: () => undefined };
    const thrown = await jobs.pull({ from: "m" }, options).catch((error: unknown) => error);

    expect((thrown as Error).name).toBe("AbortError");
    expect(processes).toEqual([]);
  });
});
