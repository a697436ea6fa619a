/** A server of one blob that does what it is told: cuts, stalls, lies, or knows no ranges. */
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { type BlobSource, urlSource } from "../../src/http/blob-source.ts";
import { createHttp } from "../../src/http/http.ts";

export interface BlobRequest {
  /** From 0, in the order of arrival. */
  readonly index: number;
  readonly start: number;
  readonly end: number;
  /** Requests that it is answering, this one included. */
  readonly atOnce: number;
}

export interface Behaviour {
  /** Instead of the blob. */
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** Everything is sent, with 200. */
  readonly isRangeless?: boolean;
  readonly contentRange?: string;
  /** Closes the connection after so many bytes. */
  readonly cutAfter?: number;
  /** Says nothing any more after so many bytes. */
  readonly stallAfter?: number;
  /** Inverts the byte at this offset. */
  readonly flip?: number;
  /** Sends so many bytes more than it was asked for, or fewer, and does not say how many. */
  readonly surplus?: number;
  readonly bytesPerSecond?: number;
  /** Awaited before it answers. */
  readonly before?: () => Promise<unknown> | undefined;
}

export interface BlobServer extends AsyncDisposable {
  readonly url: string;
  readonly requests: readonly BlobRequest[];
  /** Bytes given to the system to send. */
  readonly sentBytes: number;
  /** The most requests that it was answering at once. */
  readonly mostAtOnce: number;
  source(): BlobSource;
}

const CHUNK_BYTES = 16 * 1024;

export async function blobServer(
  blob: Uint8Array,
  behave: (request: BlobRequest) => Behaviour = () => ({}),
): Promise<BlobServer> {
  const requests: BlobRequest[] = [];
  const state = { sentBytes: 0, atOnce: 0, mostAtOnce: 0 };
  const server = createServer((incoming, response) => {
    const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(incoming.headers.range ?? "") ?? [];
    const start = Number(from ?? 0);
    const end = to === undefined ? blob.length : Math.min(Number(to) + 1, blob.length);
    state.atOnce += 1;
    const request = { index: requests.length, start, end, atOnce: state.atOnce };
    requests.push(request);
    state.mostAtOnce = Math.max(state.mostAtOnce, state.atOnce);
    answer(response, { blob, request, behaviour: behave(request) }, (sent) => {
      state.sentBytes += sent;
    })
      .catch(() => response.destroy())
      .finally(() => (state.atOnce -= 1));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/blob`;
  const http = createHttp({ offline: false, caBundle: "", isInsecure: () => true });
  return {
    url,
    requests,
    get sentBytes() {
      return state.sentBytes;
    },
    get mostAtOnce() {
      return state.mostAtOnce;
    },
    source: () => urlSource(http, url),
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

interface Task {
  readonly blob: Uint8Array;
  readonly request: BlobRequest;
  readonly behaviour: Behaviour;
}

async function answer(
  response: ServerResponse,
  { blob, request, behaviour }: Task,
  onSent: (bytes: number) => void,
): Promise<void> {
  await behaviour.before?.();
  if (behaviour.status !== undefined) {
    response.writeHead(behaviour.status, behaviour.headers).end();
    return;
  }
  const { start, end } = behaviour.isRangeless === true ? { start: 0, end: blob.length } : request;
  const bytes = bodyOf(blob.subarray(start, end + (behaviour.surplus ?? 0)), start, behaviour.flip);
  const contentRange = behaviour.contentRange ?? `bytes ${start}-${end - 1}/${blob.length}`;
  // Without a length, so that a surplus can be sent.
  const length = behaviour.surplus === undefined ? { "content-length": `${bytes.length}` } : {};
  if (behaviour.isRangeless === true) response.writeHead(200, length);
  else response.writeHead(206, { ...length, "content-range": contentRange });
  await send(response, bytes, { ...behaviour, onSent });
}

function bodyOf(bytes: Uint8Array, start: number, flip: number | undefined): Uint8Array {
  if (flip === undefined || flip < start || flip >= start + bytes.length) return bytes;
  const copy = bytes.slice();
  copy[flip - start] = (copy[flip - start] ?? 0) ^ 0xff;
  return copy;
}

async function send(
  response: ServerResponse,
  bytes: Uint8Array,
  options: Behaviour & { readonly onSent: (bytes: number) => void },
): Promise<void> {
  const { cutAfter, stallAfter, bytesPerSecond, onSent } = options;
  const until = Math.min(cutAfter ?? Infinity, stallAfter ?? Infinity, bytes.length);
  const step = Math.min(CHUNK_BYTES, Math.ceil((bytesPerSecond ?? Infinity) / 100));
  const began = performance.now();
  const closed = new Promise<void>((resolve) => response.once("close", () => resolve()));
  for (let sent = 0; sent < until;) {
    if (response.destroyed) return;
    const chunk = bytes.subarray(sent, Math.min(sent + step, until));
    const written = new Promise<void>((resolve) => response.write(chunk, () => resolve()));
    await Promise.race([written, closed]);
    sent += chunk.length;
    onSent(chunk.length);
    const dueMs = bytesPerSecond === undefined ? 0 : (sent / bytesPerSecond) * 1000;
    const earlyMs = dueMs - (performance.now() - began);
    if (earlyMs > 1) await Bun.sleep(earlyMs);
  }
  if (cutAfter !== undefined && until === cutAfter) return void response.destroy();
  if (stallAfter === undefined) return void response.end();
  await closed;
}
