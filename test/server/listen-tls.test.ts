import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { connect as connectHttp2, type ClientHttp2Session } from "node:http2";
import { join } from "node:path";
import { connect as connectTls, type SecureVersion } from "node:tls";
import { createApp } from "../../src/server/app.ts";
import { listen, type Listening } from "../../src/server/listen.ts";
import { generatedCertificate } from "../../src/server/tls/generated.ts";
import { eventually } from "../helpers/eventually.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { fakeDeps } from "./fake-deps.ts";

/** What the app below saw of clients that left. */
const seen = { aborted: 0, cancelled: 0 };

const api = createApp(fakeDeps());
const app = {
  fetch(request: Request): Response | Promise<Response> {
    const { pathname } = new URL(request.url);
    if (pathname === "/stream") return endless(request);
    if (pathname === "/length") return length(request);
    return api.fetch(request, { trusted: false });
  },
};

let directory: Awaited<ReturnType<typeof tempDir>>;
let listening: Listening;
let ca: string;

beforeAll(async () => {
  directory = await tempDir();
  const machine = { hostname: "box", addresses: [], others: [] };
  const files = { directory: join(directory.path, "tls"), machine, now: new Date() };
  const tls = await generatedCertificate(files);
  ca = await Bun.file(tls.authority ?? "").text();
  const socket = join(directory.path, "runner.sock");
  listening = await listen({ app, hostname: "127.0.0.1", port: 0, socket, tls });
});
afterAll(async () => {
  await listening.stop();
  await directory[Symbol.asyncDispose]();
});

describe("listen with TLS", () => {
  test("tls: the endpoint is https, and who trusts the authority is answered by name and by address", async () => {
    const byAddress = await fetch(`${listening.endpoint}/version`, trusting());
    const byName = await fetch(`${byNameUrl()}/version`, trusting());

    expect(listening.endpoint).toStartWith("https://127.0.0.1:");
    expect(listening.authority).toEndWith("ca.crt");
    expect([byAddress.status, byName.status]).toEqual([200, 200]);
  });

  test("tls: who does not trust the authority gets no answer", async () => {
    const outcome: unknown = await fetch(`${listening.endpoint}/version`, {
      keepalive: false,
    }).catch((error: unknown) => error);

    expect(outcome).toMatchObject({ code: "SELF_SIGNED_CERT_IN_CHAIN" });
  });

  test("tls: the socket stays plain", async () => {
    const response = await fetch("http://localhost/version", {
      unix: listening.socket ?? "",
      keepalive: false,
    });

    expect(response.status).toBe(200);
  });

  test("tls: plain HTTP on the port is not answered", async () => {
    const url = (listening.endpoint ?? "").replace("https:", "http:");

    const outcome: unknown = await fetch(`${url}/version`, { keepalive: false }).catch(
      (error: unknown) => error,
    );

    expect(outcome).toBeInstanceOf(Error);
  });

  test.each([
    ["TLSv1.1", false],
    ["TLSv1.2", true],
    ["TLSv1.3", true],
  ] as const)("tls: %s is spoken: %p", async (version, isSpoken) => {
    expect(await handshakes(version)).toBe(isSpoken);
  });

  test("tls: a foreign Host is refused over HTTP/2, too", async () => {
    await using session = openSession();

    const own = await exchange(session.session, { ":path": "/version" });
    const foreign = await exchange(session.session, {
      ":path": "/version",
      ":authority": "evil.example",
    });

    expect(own.status).toBe(200);
    expect(JSON.parse(own.body)).toMatchObject({ version: expect.any(String) });
    expect(foreign.status).toBe(403);
  });

  test("tls: a body of some megabytes comes over HTTP/2", async () => {
    await using session = openSession();
    const body = Buffer.alloc(3_000_000, "x");

    const answer = await exchange(session.session, { ":path": "/length", ":method": "POST" }, body);

    expect(answer).toEqual({ status: 200, body: "3000000" });
  });

  test("tls: a stream over HTTP/2 comes in pieces, and a client that leaves ends it", async () => {
    await using session = openSession();
    const before = { ...seen };

    const stream = session.session.request({ ":path": "/stream" });
    const first = Promise.withResolvers<string>();
    stream.once("data", (chunk: Buffer) => first.resolve(chunk.toString()));
    stream.on("error", () => undefined);
    const piece = await first.promise;
    stream.close(8);
    await eventually(() => seen.aborted > before.aborted && seen.cancelled > before.cancelled);
    const again = await exchange(session.session, { ":path": "/version" });

    expect(piece).toStartWith("data: 0");
    expect(again.status).toBe(200);
    await eventually(() => listening.pendingRequests() === 0);
  });

  test("tls: a connection that is cut ends all its streams", async () => {
    const session = openSession();
    const before = seen.cancelled;
    const streams = Array.from({ length: 20 }, () =>
      session.session.request({ ":path": "/stream" }),
    );
    await Promise.all(
      streams.map((stream) => {
        const began = Promise.withResolvers<void>();
        stream.once("data", () => began.resolve());
        stream.on("error", () => undefined);
        return began.promise;
      }),
    );

    session.session.on("error", () => undefined);
    session.session.destroy();

    await eventually(() => seen.cancelled === before + streams.length);
    await eventually(() => listening.pendingRequests() === 0);
    expect(listening.pendingRequests()).toBe(0);
  });
});

function trusting(): RequestInit {
  return { tls: { ca }, keepalive: false } as RequestInit;
}

function byNameUrl(): string {
  return (listening.endpoint ?? "").replace("127.0.0.1", "localhost");
}

function endless(request: Request): Response {
  let count = 0;
  request.signal.addEventListener("abort", () => void (seen.aborted += 1), { once: true });
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      if (count > 0) await Bun.sleep(5);
      controller.enqueue(new TextEncoder().encode(`data: ${count}\n\n`));
      count += 1;
    },
    cancel() {
      seen.cancelled += 1;
    },
  });
  return new Response(body, { headers: { "content-type": "text/event-stream" } });
}

async function length(request: Request): Promise<Response> {
  return new Response(String((await request.arrayBuffer()).byteLength));
}

function openSession(): { readonly session: ClientHttp2Session } & AsyncDisposable {
  const session = connectHttp2(byNameUrl(), { ca });
  return {
    session,
    [Symbol.asyncDispose]: () => {
      const { promise, resolve } = Promise.withResolvers<void>();
      session.once("close", resolve);
      session.close();
      return promise;
    },
  };
}

function exchange(
  session: ClientHttp2Session,
  headers: Record<string, string>,
  body?: Buffer,
): Promise<{ status: number; body: string }> {
  const stream = session.request(headers);
  const { promise, resolve, reject } = Promise.withResolvers<{ status: number; body: string }>();
  let status = 0;
  let text = "";
  stream.on("response", (answer) => void (status = Number(answer[":status"])));
  stream.on("data", (chunk: Buffer) => void (text += chunk.toString()));
  stream.on("end", () => resolve({ status, body: text }));
  stream.on("error", reject);
  stream.end(body);
  return promise;
}

async function handshakes(version: SecureVersion): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const { port } = new URL(listening.endpoint ?? "");
  const socket = connectTls({
    host: "127.0.0.1",
    port: Number(port),
    servername: "localhost",
    ca,
    minVersion: version,
    maxVersion: version,
  });
  socket.once("secureConnect", () => resolve(true));
  socket.once("error", () => resolve(false));
  socket.once("close", () => resolve(false));
  const is = await promise;
  socket.destroy();
  return is;
}
