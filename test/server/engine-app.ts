/** The app on a real port, over a fake engine. */
import type { AppError } from "../../src/errors.ts";
import { createApp } from "../../src/server/app.ts";
import type { AppDeps } from "../../src/server/deps.ts";
import { type Listening, listen } from "../../src/server/listen.ts";
import { FakeClock } from "../fakes/clock.ts";
import { type FakeEngine, type Script, startFakeEngine } from "../fakes/engine.ts";
import { fakeDeps, type FakeRuntime, fakeRuntime, type Gate } from "./fake-deps.ts";

export interface EngineApp extends AsyncDisposable {
  readonly engine: FakeEngine;
  readonly runtime: FakeRuntime;
  readonly clock: FakeClock;
  readonly listening: Listening;
  /** @param body text as it is, anything else as JSON */
  post(path: string, body: unknown, init?: RequestInit): Promise<Response>;
}

export interface EngineAppOptions {
  readonly gate?: Gate;
  /** Why the engine has died. */
  readonly failure?: AppError;
  readonly deps?: Partial<AppDeps>;
}

export async function engineApp(
  script: Script,
  { deps, ...options }: EngineAppOptions = {},
): Promise<EngineApp> {
  const engine = await startFakeEngine(script);
  const clock = new FakeClock();
  const runtime = fakeRuntime({ socket: engine.socket, ...options });
  const app = createApp(fakeDeps({ runtime, clock, ...deps }));
  const listening = await listen({ app, hostname: "127.0.0.1", port: 0 });
  return {
    engine,
    runtime,
    clock,
    listening,
    post: (path, body, init) =>
      fetch(`${listening.endpoint}${path}`, {
        method: "POST",
        body: typeof body === "string" ? body : JSON.stringify(body),
        keepalive: false,
        ...init,
      }),
    async [Symbol.asyncDispose]() {
      await listening.stop();
      await engine[Symbol.asyncDispose]();
    },
  };
}
