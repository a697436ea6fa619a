import { describe, expect, test } from "bun:test";
import type { RuntimeEvent, WorkerFacts } from "../../src/runtime/events.ts";
import { createApp } from "../../src/server/app.ts";
import type { AppDeps } from "../../src/server/deps.ts";
import { listen } from "../../src/server/listen.ts";
import { FakeClock } from "../fakes/clock.ts";
import { eventually } from "../helpers/eventually.ts";
import { fakeDeps, fakeRuntime, IDLE_WORKER } from "./fake-deps.ts";

const WORKER: WorkerFacts = {
  workerId: 7,
  backend: "llama.cpp",
  modelName: "me/pebble",
  modelId: "sha256:1",
  mode: "completion",
};
const READY: RuntimeEvent = { kind: "ready", atMs: 5, worker: WORKER, loadMs: 12 };

interface Event {
  readonly event: string;
  readonly data: Record<string, unknown>;
}

function parse(text: string): Event[] {
  return text
    .split("\n\n")
    .filter((part) => part.startsWith("event: "))
    .map((part) => {
      const [event = "", data = ""] = part.split("\n");
      return {
        event: event.slice("event: ".length),
        data: JSON.parse(data.slice("data: ".length)) as Record<string, unknown>,
      };
    });
}

interface Reader {
  next(): Promise<string>;
  cancel(): Promise<void>;
}

async function open(deps: Partial<AppDeps>): Promise<Reader> {
  const response = await createApp(fakeDeps(deps)).request("/engines/events");
  expect(response.headers.get("content-type")).toBe("text/event-stream");
  const reader = response.body?.getReader();
  return {
    async next() {
      return new TextDecoder().decode((await reader?.read())?.value);
    },
    cancel: async () => reader?.cancel(),
  };
}

describe("GET /engines/events", () => {
  test("HEAD has no reader, and leaves nothing behind", async () => {
    const clock = new FakeClock();
    const deps = fakeDeps({ runtime: fakeRuntime({ workers: [] }), clock });

    const response = await createApp(deps).request("/engines/events", { method: "HEAD" });

    expect(response.status).toBe(200);
    expect(response.headers.get("content-type")).toBe("text/event-stream");
    expect(response.body).toBeNull();
    expect(clock.pending).toBe(0);
  });

  test("begins with the workers, then tells what happens in the words of the wire", async () => {
    const runtime = fakeRuntime({ workers: [IDLE_WORKER] });
    const reader = await open({ runtime, clock: new FakeClock() });

    const snapshot = parse(await reader.next());
    runtime.events.emit(READY);

    expect(snapshot).toMatchObject([
      { event: "snapshot", data: { workers: [{ model_name: "me/gone", state: "ready" }] } },
    ]);
    expect(parse(await reader.next())).toEqual([
      {
        event: "ready",
        data: {
          at_ms: 5,
          load_ms: 12,
          worker: {
            worker_id: 7,
            backend: "llama.cpp",
            model_name: "me/pebble",
            model_id: "sha256:1",
            mode: "completion",
          },
        },
      },
    ]);
    await reader.cancel();
  });

  test("shows a sign of life every 15 seconds, while somebody listens and nothing else is to be read", async () => {
    const clock = new FakeClock();
    const reader = await open({ runtime: fakeRuntime({}), clock });
    await reader.next();

    clock.advance(15_000);
    const first = await reader.next();
    clock.advance(15_000);
    clock.advance(15_000);
    const second = await reader.next();
    await reader.cancel();

    expect([first, second]).toEqual([": \n\n", ": \n\n"]);
    expect(clock.pending).toBe(0);
  });

  test("a reader that is too slow is told how much it has missed", async () => {
    const runtime = fakeRuntime({});
    const reader = await open({ runtime, clock: new FakeClock() });

    for (let index = 0; index < 5000; index += 1) runtime.events.emit({ ...READY, loadMs: index });
    await reader.next();
    const seen = parse(await reader.next());
    runtime.events.emit(READY);

    expect(seen).toHaveLength(1001);
    expect(seen.at(-2)).toMatchObject({ event: "ready", data: { load_ms: 999 } });
    expect(seen.at(-1)).toEqual({ event: "dropped", data: { dropped: 4000 } });
    expect(parse(await reader.next())).toMatchObject([{ event: "ready" }]);
    await reader.cancel();
  });

  test("a reader that leaves is forgotten", async () => {
    const runtime = fakeRuntime({});
    let listeners = 0;
    const { events } = runtime;
    const subscribe = events.subscribe.bind(events);
    events.subscribe = (listener) => {
      listeners += 1;
      const stop = subscribe(listener);
      return () => {
        listeners -= 1;
        stop();
      };
    };
    const clock = new FakeClock();
    const app = createApp(fakeDeps({ runtime, clock }));
    const listening = await listen({ app, hostname: "127.0.0.1", port: 0 });
    const client = new AbortController();

    const response = await fetch(`${listening.endpoint}/engines/events`, { signal: client.signal });
    await response.body?.getReader().read();
    const during = listeners;
    client.abort();
    await eventually(() => listeners === 0);
    await listening.stop();

    expect(during).toBe(1);
    expect(clock.pending).toBe(0);
  });

  test("ends when the runner lets go of those who only watch", async () => {
    const leaving = new AbortController();
    const runner = {
      info: () => Promise.reject(new Error("not asked")),
      isStopping: false,
      watching: leaving.signal,
      stop: () => undefined,
    };
    const clock = new FakeClock();
    const app = createApp(fakeDeps({ runtime: fakeRuntime({}), runner, clock }));
    const response = await app.request("/engines/events");

    leaving.abort();
    const late = await app.request("/engines/events");

    expect(parse(await response.text())).toHaveLength(1);
    expect(parse(await late.text())).toHaveLength(1);
    expect(clock.pending).toBe(0);
  });

  test("without a runner there is nothing to watch", async () => {
    expect((await createApp(fakeDeps()).request("/engines/events")).status).toBe(503);
  });
});
