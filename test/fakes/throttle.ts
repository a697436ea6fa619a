/** A slow line: a TCP proxy that delays the beginning of every answer and bounds the rate of each connection. */
import { connect, createServer, type Socket } from "node:net";
import type { AddressInfo } from "node:net";

export interface ThrottleOptions {
  /** Where it leads, on 127.0.0.1. */
  readonly targetPort: number;
  /** Of each connection, from the target to the client; no limit unless given. */
  readonly bytesPerSecond?: number;
  /** Round trip: what the target sends first after the client has spoken is held back for so long. */
  readonly latencyMs?: number;
}

export interface Throttle extends AsyncDisposable {
  readonly port: number;
  /** Handed on to clients. */
  bytesDown(): number;
  bytesUp(): number;
  connections(): number;
}

/** Small enough to be smooth: a hundredth of a second at 6 MB/s. */
const CHUNK_BYTES = 64 * 1024;

export async function startThrottle(options: ThrottleOptions): Promise<Throttle> {
  const line: Line = { options, sockets: new Set(), down: 0, up: 0, accepted: 0 };
  const server = createServer({ noDelay: true }, (client) => {
    line.accepted += 1;
    const target = connect({ port: options.targetPort, host: "127.0.0.1", noDelay: true });
    for (const socket of [client, target]) {
      line.sockets.add(socket);
      // Each end learns of the other's end only; why does not matter on a line.
      socket.on("error", () => undefined);
      socket.on("close", () => line.sockets.delete(socket));
    }
    const state: Turn = { spokeAt: performance.now() };
    void forward(client, target, (size) => {
      state.spokeAt = performance.now();
      line.up += size;
    });
    void forwardSlowly(line, state, { client, target });
  });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once("error", reject);
  server.listen(0, "127.0.0.1", resolve);
  await promise;
  return {
    port: (server.address() as AddressInfo).port,
    bytesDown: () => line.down,
    bytesUp: () => line.up,
    connections: () => line.accepted,
    [Symbol.asyncDispose]() {
      const stopped = Promise.withResolvers<void>();
      server.close(() => stopped.resolve());
      for (const socket of line.sockets) socket.destroy();
      return stopped.promise;
    },
  };
}

// --- internal ---

interface Line {
  readonly options: ThrottleOptions;
  readonly sockets: Set<Socket>;
  down: number;
  up: number;
  accepted: number;
}

interface Turn {
  /** When the client last said something. */
  spokeAt: number;
}

async function forward(from: Socket, to: Socket, onBytes: (size: number) => void): Promise<void> {
  try {
    for await (const chunk of from as AsyncIterable<Uint8Array>) {
      onBytes(chunk.length);
      await write(to, chunk);
    }
    to.end();
  } catch {
    to.destroy();
  }
}

/** Chunks are due at the connection's own rate, none earlier than the latency after the client's last word. */
async function forwardSlowly(
  line: Line,
  turn: Turn,
  { client, target }: { client: Socket; target: Socket },
): Promise<void> {
  const { bytesPerSecond = Number.POSITIVE_INFINITY, latencyMs = 0 } = line.options;
  let freeAt = 0;
  try {
    for await (const chunk of target as AsyncIterable<Uint8Array>) {
      for (let offset = 0; offset < chunk.length; offset += CHUNK_BYTES) {
        const part = chunk.subarray(offset, offset + CHUNK_BYTES);
        const dueAt = Math.max(freeAt, turn.spokeAt + latencyMs);
        await Bun.sleep(Math.max(dueAt - performance.now(), 0));
        // Time lost to a timer that came late is made up for; time nobody asked in is not.
        freeAt = Math.max(dueAt, performance.now() - 100) + (part.length / bytesPerSecond) * 1000;
        await write(client, part);
        line.down += part.length;
      }
    }
    client.end();
  } catch {
    client.destroy();
  }
}

async function write(socket: Socket, bytes: Uint8Array): Promise<void> {
  if (socket.destroyed) throw new Error("the other end is gone");
  if (socket.write(bytes)) return;
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const onClose = (): void => reject(new Error("the other end is gone"));
  socket.once("drain", resolve);
  socket.once("close", onClose);
  try {
    await promise;
  } finally {
    socket.off("drain", resolve);
    socket.off("close", onClose);
  }
}
