import { describe, expect, test } from "bun:test";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { AppError, toAppError } from "../../src/errors.ts";
import { createHttp, type HttpOptions } from "../../src/http/http.ts";
import { reasonOf } from "../../src/http/connection-error.ts";
import { type RawAnswer, type RawRequest, type RawServer, serveRaw } from "../fakes/raw-http.ts";
import { certificates, openssl } from "../helpers/certificates.ts";
import { freePort } from "../helpers/free-port.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { testIf } from "../helpers/test-if.ts";
import { failureOf, rejectionOf } from "./failure-of.ts";

const signal = new AbortController().signal;
const DEFAULTS: HttpOptions = { offline: false, caBundle: "", isInsecure: () => false };
const http = createHttp(DEFAULTS);
const withOpenssl = testIf(openssl !== null, "openssl is not installed");

interface Server extends AsyncDisposable, Pick<RawServer, "requests" | "connections"> {
  readonly url: string;
}

type Handle = (request: RawRequest) => RawAnswer | Promise<RawAnswer>;

async function serve(handle: Handle, isSecure = false): Promise<Server> {
  const tls = isSecure ? await certificates() : undefined;
  const server = await serveRaw(async (request) => handle(request), { tls });
  return {
    url: `${isSecure ? "https" : "http"}://127.0.0.1:${server.port}`,
    requests: server.requests,
    connections: server.connections,
    [Symbol.asyncDispose]: () => server.stop(),
  };
}

const ok: Handle = () => ({ status: 200, body: Buffer.from("ok") });

function redirecting(status: number, location: string): Handle {
  return ({ record }) =>
    record.path === "/from" ? { status, headers: { location } } : { status: 200 };
}

describe("createHttp", () => {
  test("every request says who sends it and wants bytes as they are", async () => {
    await using server = await serve(ok);

    const response = await http.send(`${server.url}/a?b=c`, { signal, headers: { "X-Y": "z" } });

    expect(await response.text()).toBe("ok");
    expect(server.requests[0]?.headers).toMatchObject({
      "accept-encoding": "identity",
      "user-agent": expect.stringMatching(/^tug\//),
      "x-y": "z",
    });
  });

  test("what comes compressed all the same is not unpacked", async () => {
    const body = Bun.gzipSync(Buffer.from("text"));
    await using server = await serve(() => ({
      status: 200,
      headers: { "content-encoding": "gzip" },
      body,
    }));

    const response = await http.send(server.url, { signal });

    expect(await response.bytes()).toEqual(new Uint8Array(body));
  });

  test("any status is an answer", async () => {
    await using server = await serve(() => ({ status: 503 }));

    const response = await http.send(server.url, { signal });

    expect(response.status).toBe(503);
  });

  test("a credential in the address is not sent", async () => {
    await using server = await serve(ok);

    await http.send(server.url.replace("//", "//user:secret@"), { signal });

    expect(server.requests[0]?.headers["authorization"]).toBeUndefined();
  });

  test.each(["ftp://host/", "file:///etc/passwd", "nonsense"])("%s is refused", async (url) => {
    const error = await failureOf(http.send(url, { signal }));

    expect(error.code).toBe("usage");
  });

  test("offline: no connection is made", async () => {
    await using server = await serve(ok);
    const offline = createHttp({ ...DEFAULTS, offline: true });

    const error = await failureOf(offline.send(server.url, { signal }));

    expect(error.code).toBe("offline");
    expect(error.message).toMatch(/^cannot reach `127\.0\.0\.1:\d+`: offline mode is on$/);
    expect(error.hint).toContain("TUG_OFFLINE");
    expect(server.connections()).toBe(0);
  });

  test("a refused connection is a passing failure that names the host", async () => {
    const port = await freePort();

    const error = await failureOf(http.send(`http://127.0.0.1:${port}/secret?token`, { signal }));

    expect(error.code).toBe("registry_unavailable");
    expect(error.message).toBe(`cannot reach \`127.0.0.1:${port}\`: it refused the connection`);
    expect(error.details).toEqual({ reason: "refused" });
  });

  test("a server that does not answer in time is given up", async () => {
    await using server = await serve(({ closed }) => closed.then(() => ({ status: 200 })));

    const error = await failureOf(http.send(server.url, { signal, headersTimeoutMs: 30 }));

    expect(error.code).toBe("timed_out");
  });

  test("an abort before and during the request passes the signal's reason on", async () => {
    await using server = await serve(({ closed }) => closed.then(() => ({ status: 200 })));
    const controller = new AbortController();
    const sending = http.send(server.url, { signal: controller.signal });

    controller.abort();

    expect(toAppError(await rejectionOf(sending)).code).toBe("cancelled");
    expect(await rejectionOf(http.send(server.url, { signal: controller.signal }))).toBe(
      controller.signal.reason,
    );
  });

  test("a proxy is not asked for what is on this machine", async () => {
    await using server = await serve(ok);
    await using proxy = await serve(() => ({ status: 502 }));
    const before = process.env["HTTP_PROXY"];
    process.env["HTTP_PROXY"] = proxy.url;

    try {
      const response = await http.send(server.url, { signal });

      expect(response.status).toBe(200);
      expect(proxy.connections()).toBe(0);
    } finally {
      if (before === undefined) delete process.env["HTTP_PROXY"];
      else process.env["HTTP_PROXY"] = before;
    }
  });
});

function streamed(...chunks: readonly string[]): ReadableStream<Uint8Array> {
  return new ReadableStream({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(Buffer.from(chunk));
      controller.close();
    },
  });
}

async function text(body: AsyncIterable<Uint8Array>): Promise<string> {
  return Buffer.concat(await Array.fromAsync(body)).toString();
}

describe("bodies", () => {
  test("a stream is sent with the length that is announced", async () => {
    await using server = await serve(async ({ body }) => ({
      status: 200,
      body: Buffer.from(await text(body)),
    }));

    const response = await http.send(server.url, {
      method: "PUT",
      headers: { "content-length": "6" },
      body: () => streamed("abc", "def"),
      signal,
    });

    expect(await response.text()).toBe("abcdef");
    expect(server.requests[0]?.headers["content-length"]).toBe("6");
    expect(server.requests[0]?.headers["transfer-encoding"]).toBeUndefined();
  });

  test("a stream that fails is not taken for a failure of the network", async () => {
    await using server = await serve(ok);
    const broken = new AppError("not_found", "cannot read `file`: it is gone");

    const error = await failureOf(
      http.send(server.url, {
        method: "PUT",
        headers: { "content-length": "6" },
        body: () => new ReadableStream({ pull: (it) => it.error(broken) }),
        signal,
      }),
    );

    expect(error).toBe(broken);
  });
});

describe("redirects", () => {
  test("within one origin everything goes along", async () => {
    await using server = await serve(redirecting(307, "/to"));

    await http.send(`${server.url}/from`, {
      authorization: "Bearer t",
      headers: { range: "bytes=1-2", cookie: "c" },
      signal,
    });

    expect(server.requests[1]).toMatchObject({ method: "GET", path: "/to" });
    expect(server.requests[1]?.headers).toMatchObject({
      authorization: "Bearer t",
      cookie: "c",
      range: "bytes=1-2",
    });
  });

  test("to another origin credentials stay behind and the range goes along", async () => {
    await using storage = await serve(ok);
    await using server = await serve(redirecting(307, `${storage.url}/to?signature=s`));

    const response = await http.send(`${server.url}/from`, {
      authorization: "Bearer t",
      headers: { Range: "bytes=1-2", Cookie: "c" },
      signal,
    });

    const { headers = {} } = storage.requests[0] ?? {};
    expect(response.url).toBe(`${storage.url}/to?signature=s`);
    expect(headers["range"]).toBe("bytes=1-2");
    expect(headers["authorization"]).toBeUndefined();
    expect(headers["cookie"]).toBeUndefined();
  });

  test("a credential does not come back with the way", async () => {
    await using server = await serve(({ record }) =>
      record.path === "/from" ? { status: 302, headers: { location: other.url } } : { status: 200 },
    );
    await using other = await serve(() => ({
      status: 302,
      headers: { location: `${server.url}/to` },
    }));

    await http.send(`${server.url}/from`, { authorization: "Bearer t", signal });

    expect(server.requests[1]?.path).toBe("/to");
    expect(server.requests[1]?.headers["authorization"]).toBeUndefined();
  });

  test("a credential in a redirect's address is not sent", async () => {
    await using storage = await serve(ok);
    await using server = await serve(
      redirecting(302, `${storage.url.replace("//", "//user:secret@")}/to`),
    );

    await http.send(`${server.url}/from`, { signal });

    expect(storage.requests[0]?.headers["authorization"]).toBeUndefined();
  });

  test("307 repeats a request with its body, made anew", async () => {
    await using server = await serve(redirecting(307, "/to"));
    let made = 0;
    const body = (): string => {
      made += 1;
      return "body";
    };

    await http.send(`${server.url}/from`, { method: "PUT", body, signal });

    expect(server.requests[1]).toMatchObject({ method: "PUT", bytesReceived: 4 });
    expect(made).toBe(2);
  });

  test("303 goes on with GET and without the body", async () => {
    await using server = await serve(redirecting(303, "/to"));

    await http.send(`${server.url}/from`, {
      method: "POST",
      body: () => "body",
      headers: { "content-type": "text/plain" },
      signal,
    });

    expect(server.requests[1]).toMatchObject({ method: "GET", bytesReceived: 0 });
    expect(server.requests[1]?.headers["content-type"]).toBeUndefined();
  });

  test("302 of a request that changes something is an answer", async () => {
    await using server = await serve(redirecting(302, "/to"));

    const response = await http.send(`${server.url}/from`, { method: "POST", signal });

    expect(response.status).toBe(302);
    expect(server.requests).toHaveLength(1);
  });

  test("manual: a redirect is an answer", async () => {
    await using server = await serve(redirecting(307, "/to"));

    const response = await http.send(`${server.url}/from`, { redirect: "manual", signal });

    expect(response.status).toBe(307);
  });

  test("a circle ends after ten", async () => {
    await using server = await serve(() => ({ status: 302, headers: { location: "/from" } }));

    const error = await failureOf(http.send(`${server.url}/from`, { signal }));

    expect(error.code).toBe("registry_unavailable");
    expect(error.details?.["permanent"]).toBe(true);
    expect(server.requests).toHaveLength(11);
  });

  test.each(["file:///etc/passwd", "http://[", "javascript:0"])(
    "to %s none is followed",
    async (location) => {
      await using server = await serve(redirecting(302, location));

      const error = await failureOf(http.send(`${server.url}/from`, { signal }));

      expect(error.message).toEndWith("it redirects to what is no http address");
    },
  );
});

describe("TLS", () => {
  withOpenssl("an unknown authority is refused, with the way out", async () => {
    await using server = await serve(ok, true);

    const error = await failureOf(http.send(server.url, { signal }));

    expect(reasonOf(error)).toBe("certificate");
    expect(error.details?.["permanent"]).toBe(true);
    expect(error.hint).toContain("TUG_CA_BUNDLE");
  });

  withOpenssl("an authority in the bundle is trusted", async () => {
    await using server = await serve(ok, true);
    const { caFile } = await certificates();
    const trusting = createHttp({ ...DEFAULTS, caBundle: caFile });

    const response = await trusting.send(server.url, { signal });

    expect(response.status).toBe(200);
  });

  withOpenssl("a host that may be insecure is not checked; others are", async () => {
    await using server = await serve(ok, true);
    const { host } = new URL(server.url);
    const lenient = createHttp({ ...DEFAULTS, isInsecure: (it) => it === host });

    const response = await lenient.send(server.url, { signal });
    const error = await failureOf(
      lenient.send(server.url.replace("127.0.0.1", "localhost"), { signal }),
    );

    expect(response.status).toBe(200);
    expect(reasonOf(error)).toBe("certificate");
  });

  withOpenssl("from https to http on another machine no redirect is followed", async () => {
    await using server = await serve(redirecting(302, "http://registry.invalid/to"), true);
    const { caFile } = await certificates();
    const trusting = createHttp({ ...DEFAULTS, caBundle: caFile });

    const error = await failureOf(trusting.send(`${server.url}/from`, { signal }));

    expect(error.message).toEndWith("it redirects from https to http (`registry.invalid`)");
  });

  test("a server without TLS is told from one that is down", async () => {
    using server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch: () => new Response("plain"),
    });

    const error = await failureOf(http.send(`https://127.0.0.1:${server.port}/`, { signal }));

    expect(reasonOf(error)).toBe("tls");
    expect(error.hint).toContain("--insecure");
  });

  test.each([
    ["nothing.pem", undefined, "there is no such file"],
    ["text.pem", "hello", "it has no PEM certificate"],
    [
      "damaged.pem",
      "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
      "its certificate 1 is damaged",
    ],
  ])("a CA bundle that is of no use is named: %s", async (name, content, reason) => {
    await using directory = await tempDir();
    const path = join(directory.path, name);
    if (content !== undefined) await writeFile(path, content);
    const trusting = createHttp({ ...DEFAULTS, caBundle: path });

    const error = await failureOf(trusting.send("https://127.0.0.1:1/", { signal }));

    expect(error.code).toBe("usage");
    expect(error.message).toBe(`cannot use CA bundle \`${path}\`: ${reason}`);
  });

  test("a CA bundle is not read for what needs none", async () => {
    await using server = await serve(ok);
    const trusting = createHttp({ ...DEFAULTS, caBundle: "/nowhere/ca.pem" });

    const response = await trusting.send(server.url, { signal });

    expect(response.status).toBe(200);
  });
});
