export interface CountingProxy extends AsyncDisposable {
  /** `localhost:PORT`, as in references. */
  readonly host: string;
  /** Of the bodies that it was asked to pass on, whether their readers took all of them or not. */
  bytes(): number;
}

/** Stands in front of a server, passes on what is read from it, and counts that. Nothing is written through it. */
export function startCounter(target: string): CountingProxy {
  let bytes = 0;
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    async fetch({ url, method, headers }) {
      const { pathname, search } = new URL(url);
      // HTTPS_PROXY would be asked about this machine. Bun knows `false`, its types do not.
      const options: object = { method, headers, redirect: "manual", proxy: false };
      const answer = await fetch(`${target}${pathname}${search}`, options);
      const body = await answer.bytes();
      bytes += body.length;
      return new Response(method === "HEAD" ? null : body, answer);
    },
  });
  return {
    host: `localhost:${server.port}`,
    bytes: () => bytes,
    [Symbol.asyncDispose]: () => server.stop(true),
  };
}
