/**
 * An HTTP/1.1 server on bare sockets: it can break off, stall or lie at any byte, and counts each of them. Bun.serve
 * corrects what a handler gets wrong, so a server that misbehaves cannot be built on it.
 */
import { createServer, type Server, type Socket } from "node:net";
import { createServer as createTlsServer } from "node:tls";
import type { AddressInfo } from "node:net";

/** What came and what went, in the order of arrival; the counts grow while bytes move. */
export interface RequestRecord {
  readonly method: string;
  /** Without the query. */
  readonly path: string;
  readonly query: URLSearchParams;
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  /** 0 until the answer is known. */
  status: number;
  /** Of the answer's body, handed to the socket. */
  bytesSent: number;
  /** Of the request's body. */
  bytesReceived: number;
}

export interface RawRequest {
  readonly record: RequestRecord;
  /** The body as it comes. What is left unread is read and thrown away before the answer. */
  readonly body: AsyncIterable<Uint8Array>;
  /** Resolves when the other side has gone. */
  readonly closed: Promise<void>;
}

export interface RawAnswer {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  /**
   * Without a `content-length` header the body is buffered and measured. A body that throws `ConnectionCut` ends the connection
   * after the bytes before it.
   */
  readonly body?: Uint8Array | AsyncIterable<Uint8Array>;
}

/** Thrown by a handler or a body: the connection is closed, without an answer or amid it. */
export class ConnectionCut extends Error {}

export interface RawServer {
  readonly port: number;
  readonly requests: RequestRecord[];
  /** Connections accepted so far. */
  readonly connections: () => number;
  stop(): Promise<void>;
}

export interface RawOptions {
  /** A free one unless given. */
  readonly port?: number | undefined;
  /** PEM texts. */
  readonly tls?: { readonly cert: string; readonly key: string } | undefined;
}

/** A client that sends more than this before its headers end is broken. */
const MAX_HEAD_BYTES = 64 * 1024;
/** What came of an upload and is not yet looked at. */
const MAX_PENDING_BYTES = 1024 * 1024;

export async function serveRaw(
  handle: (request: RawRequest) => Promise<RawAnswer>,
  options: RawOptions = {},
): Promise<RawServer> {
  const requests: RequestRecord[] = [];
  const sockets = new Set<Socket>();
  let accepted = 0;
  const onSocket = (socket: Socket): void => {
    accepted += 1;
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    void converse(socket, requests, handle).finally(() => socket.destroy());
  };
  const server: Server =
    options.tls === undefined
      ? createServer({ noDelay: true }, onSocket)
      : createTlsServer({ cert: options.tls.cert, key: options.tls.key }, onSocket);
  // A client that does not trust the certificate breaks off the handshake: nothing to serve.
  server.on("tlsClientError", () => undefined);
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once("error", reject);
  server.listen(options.port ?? 0, "127.0.0.1", resolve);
  await promise;
  return {
    port: (server.address() as AddressInfo).port,
    requests,
    connections: () => accepted,
    stop() {
      const stopped = Promise.withResolvers<void>();
      server.close(() => stopped.resolve());
      for (const socket of sockets) socket.destroy();
      return stopped.promise;
    },
  };
}

// --- internal ---

async function converse(
  socket: Socket,
  requests: RequestRecord[],
  handle: (request: RawRequest) => Promise<RawAnswer>,
): Promise<void> {
  const reader = new SocketReader(socket);
  try {
    for (;;) {
      const head = await reader.readHead();
      if (head === undefined) return;
      const record = parseHead(head);
      requests.push(record);
      if (record.headers["expect"] === "100-continue") {
        await write(socket, Buffer.from("HTTP/1.1 100 Continue\r\n\r\n"));
      }
      const body = count(bodyOf(reader, record.headers), record);
      const answer = await handle({ record, body, closed: reader.closed });
      for await (const _ of body) void _;
      await respond(socket, record, answer);
      if (record.headers["connection"] === "close") return;
    }
  } catch (error) {
    // Whatever the handler wants to tell must not be lost: a bug in a fake is to be seen.
    if (!(error instanceof ConnectionCut) && !reader.isClosed) console.error(error);
  } finally {
    await finish(socket);
  }
}

async function respond(socket: Socket, record: RequestRecord, answer: RawAnswer): Promise<void> {
  record.status = answer.status;
  const { body = new Uint8Array() } = answer;
  const headers: Record<string, string> = { ...answer.headers };
  const content = body instanceof Uint8Array ? body : undefined;
  if (content !== undefined && answer.status !== 204)
    headers["content-length"] ??= String(content.length);
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  await write(
    socket,
    Buffer.from(
      `HTTP/1.1 ${answer.status} ${REASONS[answer.status] ?? "-"}\r\n${lines.join("")}\r\n`,
    ),
  );
  if (record.method === "HEAD") return;
  for await (const chunk of content === undefined
    ? (body as AsyncIterable<Uint8Array>)
    : [content]) {
    await write(socket, chunk);
    record.bytesSent += chunk.length;
  }
}

/** Waits for the other side where it reads more slowly: what is counted as sent has left this process. */
async function write(socket: Socket, bytes: Uint8Array): Promise<void> {
  if (socket.destroyed || !socket.writable) throw new ConnectionCut();
  if (bytes.length === 0 || socket.write(bytes)) return;
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const onClose = (): void => reject(new ConnectionCut());
  socket.once("drain", resolve);
  socket.once("close", onClose);
  try {
    await promise;
  } finally {
    socket.off("drain", resolve);
    socket.off("close", onClose);
  }
}

/** The bytes before a cut arrive; then the end does. */
async function finish(socket: Socket): Promise<void> {
  if (socket.destroyed) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  socket.once("close", resolve);
  socket.end(resolve);
  await promise;
}

function parseHead(head: string): RequestRecord {
  const [first = "", ...lines] = head.split("\r\n");
  const [method = "", target = "/"] = first.split(" ");
  const url = new URL(target, "http://fake");
  const headers: Record<string, string> = {};
  for (const line of lines) {
    const colon = line.indexOf(":");
    headers[line.slice(0, colon).toLowerCase()] = line.slice(colon + 1).trim();
  }
  const { pathname: path, searchParams: query } = url;
  return { method, path, query, headers, status: 0, bytesSent: 0, bytesReceived: 0 };
}

async function* bodyOf(
  reader: SocketReader,
  headers: RequestRecord["headers"],
): AsyncGenerator<Uint8Array> {
  if (headers["transfer-encoding"]?.toLowerCase() === "chunked") {
    for (;;) {
      const size = Number.parseInt(await reader.readLine(), 16);
      yield* reader.readExactly(size);
      await reader.readLine();
      if (!(size > 0)) return;
    }
  }
  yield* reader.readExactly(Number(headers["content-length"] ?? 0));
}

/** Can be iterated again, to go on where an earlier iteration left. */
function count(body: AsyncGenerator<Uint8Array>, record: RequestRecord): AsyncIterable<Uint8Array> {
  return {
    [Symbol.asyncIterator]: () => ({
      async next() {
        const result = await body.next();
        if (result.done !== true) record.bytesReceived += result.value.length;
        return result;
      },
    }),
  };
}

/** The bytes of a socket, pulled. */
class SocketReader {
  readonly closed: Promise<void>;
  isClosed = false;
  readonly #socket: Socket;
  #pending: Uint8Array[] = [];
  #pendingBytes = 0;
  #wake: (() => void) | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.closed = promise;
    const onEnd = (): void => {
      this.isClosed = true;
      resolve();
      this.#wake?.();
    };
    socket.on("error", onEnd);
    socket.on("end", onEnd);
    socket.on("close", onEnd);
    socket.on("data", (chunk: Uint8Array) => {
      this.#pending.push(chunk);
      this.#pendingBytes += chunk.length;
      // Never paused while it waits: the end of a connection is only seen by a socket that reads.
      if (this.#pendingBytes > MAX_PENDING_BYTES) socket.pause();
      this.#wake?.();
    });
  }

  /** Request line and headers; undefined once the other side has closed. */
  async readHead(): Promise<string | undefined> {
    let head = Buffer.alloc(0);
    for (;;) {
      const chunk = await this.#read();
      if (chunk === undefined) return undefined;
      head = Buffer.concat([head, chunk]);
      const end = head.indexOf("\r\n\r\n");
      if (end !== -1) {
        this.#unread(head.subarray(end + 4));
        return head.subarray(0, end).toString("latin1");
      }
      if (head.length > MAX_HEAD_BYTES) throw new ConnectionCut();
    }
  }

  async readLine(): Promise<string> {
    let line = Buffer.alloc(0);
    for (;;) {
      const chunk = await this.#read();
      if (chunk === undefined) throw new ConnectionCut();
      line = Buffer.concat([line, chunk]);
      const end = line.indexOf("\r\n");
      if (end === -1) continue;
      this.#unread(line.subarray(end + 2));
      return line.subarray(0, end).toString("latin1");
    }
  }

  async *readExactly(length: number): AsyncGenerator<Uint8Array> {
    let left = length;
    while (left > 0) {
      const chunk = await this.#read();
      if (chunk === undefined) throw new ConnectionCut();
      this.#unread(chunk.subarray(left));
      const part = chunk.subarray(0, left);
      left -= part.length;
      yield part;
    }
  }

  async #read(): Promise<Uint8Array | undefined> {
    for (;;) {
      const chunk = this.#pending.shift();
      if (chunk !== undefined) {
        this.#pendingBytes -= chunk.length;
        return chunk;
      }
      if (this.isClosed) return undefined;
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      this.#socket.resume();
      await promise;
    }
  }

  #unread(rest: Uint8Array): void {
    if (rest.length === 0) return;
    this.#pending.unshift(rest);
    this.#pendingBytes += rest.length;
  }
}

const REASONS: Readonly<Record<number, string>> = {
  200: "OK",
  201: "Created",
  202: "Accepted",
  204: "No Content",
  206: "Partial Content",
  307: "Temporary Redirect",
  401: "Unauthorized",
  404: "Not Found",
  416: "Range Not Satisfiable",
  429: "Too Many Requests",
  503: "Service Unavailable",
};
