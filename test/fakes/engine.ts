/**
 * A llama-server that does what the test says: raw HTTP/1.1 on a unix socket, so that it can break every rule.
 *
 * @example
 * await using engine = await startFakeEngine(async (exchange) => {
 *   exchange.head(200, { "content-type": "text/event-stream" });
 *   await exchange.chunk("data: 1\n\n");
 *   exchange.die();
 * });
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface EngineRequest {
  readonly method: string;
  /** Path and query. */
  readonly target: string;
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

export interface Exchange {
  readonly request: EngineRequest;
  /** Bytes the socket has taken. */
  readonly writtenBytes: number;
  readonly isClosed: boolean;
  /** Resolves when the connection has gone, whoever closed it. */
  readonly closed: Promise<void>;
  /** Status line and headers; the body is chunked unless a content-length is given. */
  head(status: number, headers: Readonly<Record<string, string>>): void;
  /** Resolves when the socket has taken it; never if the reader stopped reading. */
  chunk(data: string | Uint8Array): Promise<void>;
  /** The proper end of a chunked body. */
  end(): void;
  /** The connection breaks, as when the process is killed. */
  die(): void;
  /** A whole answer. */
  json(status: number, value: unknown): Promise<void>;
}

export type Script = (exchange: Exchange) => void | Promise<void>;

export interface FakeEngine extends AsyncDisposable {
  readonly socket: string;
  readonly requests: readonly EngineRequest[];
  /** Requests whose connection the other side closed before the script was done. */
  readonly aborts: number;
}

export async function startFakeEngine(script: Script): Promise<FakeEngine> {
  const directory = await mkdtemp(join(tmpdir(), "tug-engine-"));
  const socket = join(directory, "engine.sock");
  const state = { requests: [] as EngineRequest[], aborts: 0 };
  const listener = Bun.listen<Connection>({
    unix: socket,
    socket: {
      open(peer) {
        peer.data = new Connection(peer, async (connection) => {
          state.requests.push(connection.request);
          await script(connection);
          connection.isDone = true;
        });
      },
      data: (peer, bytes) => peer.data.receive(bytes),
      drain: (peer) => peer.data.drain(),
      close(peer) {
        if (!peer.data.isDone && peer.data.isAnswering) state.aborts += 1;
        peer.data.isClosed = true;
        peer.data.gone.resolve();
      },
      error: () => undefined,
    },
  });
  return {
    socket,
    requests: state.requests,
    get aborts() {
      return state.aborts;
    },
    async [Symbol.asyncDispose]() {
      listener.stop(true);
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** The events of a chat answer as llama-server writes them, `[DONE]` included. */
export function chatEvents(words: readonly string[]): string[] {
  return [
    chatEvent({ role: "assistant", content: null }, null),
    ...words.map((content) => chatEvent({ content }, null)),
    chatEvent({}, "stop"),
    "data: [DONE]\n\n",
  ];
}

/** Answers every request with the same streamed words. */
export function speaks(words: readonly string[]): Script {
  return async (exchange) => {
    exchange.head(200, { "content-type": "text/event-stream" });
    for (const event of chatEvents(words)) await exchange.chunk(event);
    exchange.end();
  };
}

/** Starts to answer and never ends. */
export const speaksForEver: Script = async (exchange) => {
  exchange.head(200, { "content-type": "text/event-stream" });
  const event = chatEvents(["x".repeat(16_384)])[1] ?? "";
  while (!exchange.isClosed) {
    await exchange.chunk(event);
    await Bun.sleep(0);
  }
};

/** Reads a long prompt: never answers. */
export const thinksForEver: Script = (exchange) => exchange.closed;

// --- internal ---

function chatEvent(delta: object, finishReason: string | null): string {
  const chunk = {
    choices: [{ finish_reason: finishReason, index: 0, delta }],
    created: 1_700_000_000,
    id: "chatcmpl-fake",
    model: "fake",
    object: "chat.completion.chunk",
  };
  return `data: ${JSON.stringify(chunk)}\n\n`;
}

class Connection implements Exchange {
  isDone = false;
  isAnswering = false;
  isClosed = false;
  writtenBytes = 0;
  readonly gone = Promise.withResolvers<void>();
  readonly #peer: Bun.Socket<Connection>;
  readonly #onRequest: (connection: Connection) => Promise<void>;
  #received = Buffer.alloc(0);
  #request: EngineRequest | undefined;
  #unsent: Uint8Array = new Uint8Array();
  #sent = Promise.withResolvers<void>();
  #isChunked = true;

  constructor(peer: Bun.Socket<Connection>, onRequest: (it: Connection) => Promise<void>) {
    this.#peer = peer;
    this.#onRequest = onRequest;
  }

  get request(): EngineRequest {
    if (this.#request === undefined) throw new Error("no request yet");
    return this.#request;
  }

  get closed(): Promise<void> {
    return this.gone.promise;
  }

  receive(bytes: Uint8Array): void {
    this.#received = Buffer.concat([this.#received, bytes]);
    if (this.isAnswering) return;
    this.#request = parseRequest(this.#received);
    if (this.#request === undefined) return;
    this.isAnswering = true;
    void this.#onRequest(this);
  }

  drain(): void {
    const unsent = this.#unsent;
    this.#unsent = new Uint8Array();
    this.#write(unsent);
    if (this.#unsent.byteLength === 0) this.#sent.resolve();
  }

  head(status: number, headers: Readonly<Record<string, string>>): void {
    this.#isChunked = !("content-length" in headers);
    const all = this.#isChunked ? { ...headers, "transfer-encoding": "chunked" } : headers;
    const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
    this.#write(Buffer.from(`HTTP/1.1 ${status} X\r\n${lines.join("")}\r\n`));
  }

  async chunk(data: string | Uint8Array): Promise<void> {
    const bytes = Buffer.from(data as string);
    const size = Buffer.from(`${bytes.byteLength.toString(16)}\r\n`);
    this.#write(this.#isChunked ? Buffer.concat([size, bytes, Buffer.from("\r\n")]) : bytes);
    if (this.#unsent.byteLength === 0) return;
    this.#sent = Promise.withResolvers<void>();
    await Promise.race([this.#sent.promise, this.gone.promise]);
  }

  end(): void {
    this.isDone = true;
    if (this.#isChunked) this.#write(Buffer.from("0\r\n\r\n"));
    this.#peer.end();
  }

  die(): void {
    this.isDone = true;
    this.#peer.terminate();
  }

  async json(status: number, value: unknown): Promise<void> {
    const text = JSON.stringify(value);
    this.head(status, {
      "content-type": "application/json",
      "content-length": String(Buffer.byteLength(text)),
    });
    await this.chunk(text);
    this.end();
  }

  #write(bytes: Uint8Array): void {
    if (this.#unsent.byteLength > 0) {
      this.#unsent = Buffer.concat([this.#unsent, bytes]);
      return;
    }
    const taken = Math.max(0, this.#peer.write(bytes));
    this.writtenBytes += taken;
    this.#unsent = bytes.subarray(taken);
  }
}

function parseRequest(received: Buffer): EngineRequest | undefined {
  const end = received.indexOf("\r\n\r\n");
  if (end < 0) return undefined;
  const [first = "", ...lines] = received.subarray(0, end).toString().split("\r\n");
  const headers = Object.fromEntries(
    lines.map((line) => {
      const colon = line.indexOf(":");
      return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
    }),
  );
  const body = received.subarray(end + 4);
  if (body.byteLength < Number(headers["content-length"] ?? 0)) return undefined;
  const [method = "", target = ""] = first.split(" ");
  return { method, target, headers, body: body.toString() };
}
