/** Whether a server of llama.cpp's RPC protocol would serve somebody now. */

export type Answer =
  /** It listens, and talks to whoever comes next. */
  | "ready"
  /** It listens, and says nothing: it talks to one client at a time. */
  | "busy"
  /** Nobody listens there, or nobody is there. */
  | "absent";

/** A server that is free answers within a round trip. */
const ANSWER_MS = 3000;

/**
 * No command has this number in any version of the protocol: a server that reads it closes the connection, and one that
 * is with another client does not read. @see llama.cpp ggml/src/ggml-rpc/ggml-rpc.cpp rpc_serve_client
 */
const NO_COMMAND = Uint8Array.of(0xff);

/** @param server `host:port` @throws the signal's reason */
export async function readAnswer(
  server: string,
  { signal, boundMs = ANSWER_MS }: { readonly signal: AbortSignal; readonly boundMs?: number },
): Promise<Answer> {
  signal.throwIfAborted();
  const { promise, resolve } = Promise.withResolvers<Answer>();
  let isConnected = false;
  const late = setTimeout(() => resolve(isConnected ? "busy" : "absent"), boundMs);
  const onAbort = (): void => resolve("absent");
  signal.addEventListener("abort", onAbort, { once: true });
  const connecting = connect(server, {
    onOpen: () => (isConnected = true),
    onEnd: () => resolve("ready"),
  });
  // One that connects after the bound is of no use.
  void connecting.then(
    (socket) => promise.finally(() => socket.terminate()),
    () => resolve("absent"),
  );
  try {
    const answer = await promise;
    signal.throwIfAborted();
    return answer;
  } finally {
    clearTimeout(late);
    signal.removeEventListener("abort", onAbort);
  }
}

// --- internal ---

function connect(
  server: string,
  { onOpen, onEnd }: { readonly onOpen: () => void; readonly onEnd: () => void },
): Promise<{ terminate(): void }> {
  const at = server.lastIndexOf(":");
  return Bun.connect({
    hostname: server.slice(0, at),
    port: Number(server.slice(at + 1)),
    socket: {
      open(socket) {
        onOpen();
        socket.write(NO_COMMAND);
      },
      data: onEnd,
      close: onEnd,
      error: onEnd,
    },
  });
}
