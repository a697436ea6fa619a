/** The app with a scripted engine behind a real socket, and the official client in front of it. */
import { join } from "node:path";
import OpenAI from "openai";
import type { AppError } from "../../src/errors.ts";
import { createApp } from "../../src/server/app.ts";
import type { AppDeps, ResponseStore } from "../../src/server/deps.ts";
import { listen } from "../../src/server/listen.ts";
import { StateDatabase } from "../../src/state/database.ts";
import { Responses, type ResponsesOptions } from "../../src/state/responses.ts";
import { type Exchange, type FakeEngine, type Script, startFakeEngine } from "../fakes/engine.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { type CountedLease, fakeDeps, fakeRuntime } from "./fake-deps.ts";

export interface Setup extends AsyncDisposable {
  readonly url: string;
  readonly openai: OpenAI;
  readonly engine: FakeEngine;
  readonly store: Responses;
  readonly leases: readonly CountedLease[];
  /** What the engine was asked last. */
  readonly asked: () => Record<string, unknown>;
  post(body: unknown, init?: RequestInit): Promise<Response>;
  get(path: string): Promise<Response>;
  /** Another runner with the same database. */
  restart(): Promise<Setup>;
}

export interface SetupOptions {
  readonly gate?: () => Promise<unknown>;
  readonly failure?: AppError;
  readonly responses?: ResponsesOptions;
  readonly deps?: Partial<AppDeps>;
  /** What the app gets for the store. */
  readonly wrap?: (store: ResponseStore) => ResponseStore;
  readonly path?: string;
}

export async function setUp(script: Script, options: SetupOptions = {}): Promise<Setup> {
  await using stack = new AsyncDisposableStack();
  const directory = options.path === undefined ? stack.use(await tempDir()) : undefined;
  const path = options.path ?? join(directory?.path ?? "", "tug.db");
  const engine = stack.use(await startFakeEngine(script));
  const state = stack.use(new StateDatabase(path));
  const store = new Responses(state, options.responses);
  const { gate, failure } = options;
  const runtime = fakeRuntime({
    socket: engine.socket,
    ...(failure && { failure }),
    ...(gate && { gate: ({ signal }) => orAborted(gate(), signal) }),
  });
  const app = createApp(
    fakeDeps({ runtime, responses: () => options.wrap?.(store) ?? store, ...options.deps }),
  );
  const listening = await listen({ app, hostname: "127.0.0.1", port: 0 });
  stack.defer(() => listening.stop());
  const url = listening.endpoint ?? "";
  const held = stack.move();
  return {
    url,
    engine,
    store,
    leases: runtime.leases,
    openai: new OpenAI({ baseURL: `${url}/v1`, apiKey: "unused", maxRetries: 0 }),
    asked: () => JSON.parse(engine.requests.at(-1)?.body ?? "{}") as Record<string, unknown>,
    post: (body, init) =>
      fetch(`${url}/v1/responses`, {
        method: "POST",
        body: typeof body === "string" ? body : JSON.stringify(body),
        keepalive: false,
        ...init,
      }),
    get: (rest) => fetch(`${url}/v1/responses${rest}`, { keepalive: false }),
    restart: () => setUp(script, { ...options, path }),
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

function orAborted(waiting: Promise<unknown>, signal: AbortSignal | undefined): Promise<unknown> {
  const { promise, reject } = Promise.withResolvers<never>();
  signal?.addEventListener("abort", () => reject(new DOMException("left", "AbortError")));
  return Promise.race([waiting, promise]);
}

export interface Said {
  readonly reasoning?: readonly string[];
  readonly text?: readonly string[];
  readonly calls?: readonly {
    readonly id?: string;
    readonly name: string;
    readonly args: string[];
  }[];
  readonly finish?: "stop" | "length" | "tool_calls";
  /** Held until it resolves, before the end. */
  readonly until?: Promise<unknown>;
}

const USAGE = {
  prompt_tokens: 11,
  completion_tokens: 7,
  total_tokens: 18,
  prompt_tokens_details: { cached_tokens: 4 },
};

/** Says it as a stream or as a whole, as it is asked. */
export function says(said: Said | ((request: Record<string, unknown>) => Said)): Script {
  return async (exchange) => {
    const request = JSON.parse(exchange.request.body) as Record<string, unknown>;
    const saying = typeof said === "function" ? said(request) : said;
    if (request["stream"] === true) return streamed(exchange, saying);
    await saying.until;
    return exchange.json(200, whole(saying));
  };
}

export function deltas({ reasoning = [], text = [], calls = [] }: Said): object[] {
  return [
    { role: "assistant", content: null },
    ...reasoning.map((piece) => ({ reasoning_content: piece })),
    ...text.map((piece) => ({ content: piece })),
    ...calls.flatMap(({ id, name, args }, index) => [
      {
        tool_calls: [
          { index, id: id ?? `call${index}`, type: "function", function: { name, arguments: "" } },
        ],
      },
      ...args.map((piece) => ({ tool_calls: [{ index, function: { arguments: piece } }] })),
    ]),
  ];
}

export function whole({ reasoning = [], text = [], calls = [], finish = "stop" }: Said): object {
  return {
    id: "chatcmpl-fake",
    choices: [
      {
        index: 0,
        finish_reason: finish,
        message: {
          role: "assistant",
          content: text.join(""),
          ...(reasoning.length === 0 ? {} : { reasoning_content: reasoning.join("") }),
          ...(calls.length === 0
            ? {}
            : {
                tool_calls: calls.map(({ id, name, args }, index) => ({
                  id: id ?? `call${index}`,
                  type: "function",
                  function: { name, arguments: args.join("") },
                })),
              }),
        },
      },
    ],
    usage: USAGE,
  };
}

async function streamed(exchange: Exchange, said: Said): Promise<void> {
  exchange.head(200, { "content-type": "text/event-stream" });
  for (const delta of deltas(said)) await exchange.chunk(event({ choices: [{ index: 0, delta }] }));
  await said.until;
  const finish_reason = said.finish ?? "stop";
  await exchange.chunk(event({ choices: [{ index: 0, delta: {}, finish_reason }] }));
  await exchange.chunk(event({ choices: [], usage: USAGE }));
  await exchange.chunk("data: [DONE]\n\n");
  exchange.end();
}

export function event(chunk: object): string {
  return `data: ${JSON.stringify(chunk)}\n\n`;
}
