/** A request that counts until its answer has ended: the end of a stream is long after the handler's. */

/**
 * @param response whose end disposes of `counted`; a body that is whole already is not held up
 * @param signal aborted when the client leaves
 */
export function heldUntilEnd(
  response: Response,
  counted: Disposable,
  signal: AbortSignal,
): Response {
  const type = response.headers.get("content-type") ?? "";
  if (response.body === null || /^application\/json\b/i.test(type)) {
    counted[Symbol.dispose]();
    return response;
  }
  const leave = (): void => counted[Symbol.dispose]();
  signal.addEventListener("abort", leave, { once: true });
  // Nobody may read, or cancel, what is answered to a client that has left already.
  if (signal.aborted) leave();
  const over = (): void => {
    signal.removeEventListener("abort", leave);
    leave();
  };
  return new Response(passOn(response.body, over), response);
}

// --- internal ---

/** Chunk by chunk, none ahead of the reader; a failure and a reader that leaves pass on as well. */
function passOn(body: ReadableStream<Uint8Array>, over: () => void): ReadableStream<Uint8Array> {
  const reader = body.getReader();
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          const { done, value } = await reader.read();
          if (!done) {
            controller.enqueue(value);
            return;
          }
          over();
          controller.close();
        } catch (error) {
          over();
          controller.error(error);
        }
      },
      async cancel(reason) {
        over();
        await reader.cancel(reason);
      },
    },
    { highWaterMark: 0 },
  );
}
