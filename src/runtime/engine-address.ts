/** Where a running engine is reached. */

/** Path of a unix socket, or a port of 127.0.0.1. */
export type EngineAddress = string | number;

/** What `fetch` needs to reach it. */
interface EngineCall {
  readonly url: string;
  /** Empty for a port. */
  readonly init: { readonly unix?: string };
}

/** The one address of this machine that engines listen on: others could be reached from outside. */
const LOOPBACK = "127.0.0.1";
/** HTTP_PROXY would otherwise be asked about this machine. Bun knows `false`, its types do not. */
const DIRECTLY: object = { proxy: false };

/** @param path with its slash, and a query if there is one */
export function engineTarget(address: EngineAddress, path: string): EngineCall {
  return typeof address === "number"
    ? { url: `http://${LOOPBACK}:${address}${path}`, init: DIRECTLY }
    : { url: `http://localhost${path}`, init: { unix: address } };
}

/**
 * A port that was free a moment ago. The system gives them out at random, so that nobody gets one again soon; whoever
 * takes it first is seen by the engine, which cannot listen then and ends.
 */
export function takeFreePort(): number {
  const listener = Bun.listen({
    hostname: LOOPBACK,
    port: 0,
    socket: { data: () => undefined },
  });
  const { port } = listener;
  listener.stop(true);
  return port;
}

/** In the words of OpenTelemetry. @see https://opentelemetry.io/docs/specs/semconv/registry/attributes/server/ */
export function addressAttributes(
  address: EngineAddress,
): Readonly<Record<string, string | number>> {
  return typeof address === "number"
    ? { "server.address": LOOPBACK, "server.port": address, "network.transport": "tcp" }
    : { "server.address": address, "network.transport": "unix" };
}
