import { describe, expect, test } from "bun:test";
import { createHttp } from "../../src/http/http.ts";
import { type ModelUrl, parseModelUrl, planUrl, urlRevision } from "../../src/models/url-source.ts";
import { formatReference, parseReference } from "../../src/oci/reference.ts";
import { failureOf } from "../store/failure-of.ts";

const SIGNAL = new AbortController().signal;
const HTTP = createHttp({ offline: false, caBundle: "", isInsecure: () => false });
const OPTIONS = { http: HTTP, signal: SIGNAL };
const REVISION = "org.opencontainers.image.revision";

function urlOf(text: string): ModelUrl {
  const url = parseModelUrl(text);
  if (url === undefined) throw new Error(`${text} is no address`);
  return url;
}

interface Site extends AsyncDisposable {
  readonly url: string;
  readonly requests: {
    readonly method: string;
    readonly url: string;
    readonly range: string | null;
    readonly authorization: string | null;
  }[];
}

function serve(answer: (request: Request) => Response): Site {
  const requests: Site["requests"] = [];
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch(request) {
      const { method, url, headers } = request;
      requests.push({
        method,
        url,
        range: headers.get("range"),
        authorization: headers.get("authorization"),
      });
      return answer(request);
    },
  });
  return {
    url: server.url.origin,
    requests,
    [Symbol.asyncDispose]: () => server.stop(true),
  };
}

/** Ten bytes, of whatever is asked for. */
function tenBytes(headers: Record<string, string> = {}): Response {
  return new Response(new Uint8Array(10), {
    headers: { "content-type": "application/octet-stream", ...headers },
  });
}

describe("parseModelUrl", () => {
  test.each([
    ["https://example.com/tiny.gguf", "example.com/tiny:latest"],
    [
      "https://example.com/Models/My Model/Tiny-Q4_K_M.GGUF",
      "example.com/models/my-model/tiny-q4_k_m:latest",
    ],
    ["https://example.com/a%20b/%C3%84pfel.gguf?token=x#y", "example.com/a-b/a-pfel:latest"],
    ["https://EXAMPLE.com:8443/x/y.gguf", "example.com:8443/x/y:latest"],
    ["http://localhost:8080/y.gguf", "localhost:8080/y:latest"],
    ["http://localhost/y.gguf", "localhost/y:latest"],
    ["http://127.0.0.1:9/y.gguf", "127.0.0.1:9/y:latest"],
    ["http://[::1]:9/y.gguf", "[::1]:9/y:latest"],
    ["http://nas/y.gguf", "nas:80/y:latest"],
    ["https://nas/y.gguf", "nas:443/y:latest"],
    ["https://my_nas.example.com/y.gguf", "my-nas.example.com/y:latest"],
    ["https://user:secret@example.com/y.gguf", "example.com/y:latest"],
    ["https://example.com//a//y.gguf", "example.com/a/y:latest"],
    ["https://example.com/a/../b/y.gguf", "example.com/b/y:latest"],
    ["https://example.com/m-00002-of-00003.gguf", "example.com/m:latest"],
    ["https://example.com/---.gguf", "example.com/model:latest"],
    ["https://example.com/-._a__b--c.__.d_-.gguf", "example.com/a__b--c-d:latest"],
    ["https://example.com/日本.gguf", "example.com/model:latest"],
    ["https://example.com/a%2Fb%5Cc.gguf", "example.com/a-b-c:latest"],
    ["  HTTPS://example.com/y.gguf\n", "example.com/y:latest"],
  ])("%s is %s", (text, reference) => {
    const { reference: found } = urlOf(text);

    expect(formatReference(found)).toBe(reference);
    expect(parseReference(reference)).toEqual(found);
  });

  test("too long a path becomes its digest and the file's name", () => {
    const [model = "", other = "", endless] = ["model", "other", "a".repeat(300)].map((file) =>
      formatReference(urlOf(`https://example.com/${"d/".repeat(120)}${file}.gguf`).reference),
    );

    expect(model).toMatch(/^example\.com\/[0-9a-f]{12}\/model:latest$/);
    expect(endless).toMatch(/^example\.com\/[0-9a-f]{12}\/a{90}:latest$/);
    expect(other.replace("other", "model")).not.toBe(model);
  });

  test("userinfo becomes an authorization, and is nowhere else", () => {
    const { href, authorization } = urlOf("https://me:p%40ss@example.com/y.gguf?a=b#c");

    expect(href).toBe("https://example.com/y.gguf?a=b");
    expect(authorization).toBe(`Basic ${btoa("me:p@ss")}`);
  });

  test.each([
    ["ollama://x"],
    ["ftp://example.com/y.gguf"],
    ["example.com/y.gguf"],
    ["y.gguf"],
    [""],
  ])("%j is no address of the web", (text) => {
    expect(parseModelUrl(text)).toBeUndefined();
  });

  test.each([
    ["https://", "malformed"],
    ["https://example.com", "not of a `.gguf` file"],
    ["https://example.com/model.safetensors", "not of a `.gguf` file"],
    ["https://example.com/download?file=model.gguf", "not of a `.gguf` file"],
    ["https://example.com/model.gguf/", "not of a `.gguf` file"],
    ["https://example.com/.gguf", "not of a `.gguf` file"],
    ["https://example.com/%zz.gguf", "malformed escape"],
    ["https://%zz@example.com/y.gguf", "malformed escape"],
  ])("%s is refused", (text, reason) => {
    expect(() => parseModelUrl(text)).toThrow(
      expect.objectContaining({
        code: "invalid_reference",
        message: expect.stringContaining(reason),
      }),
    );
  });

  test("a refusal shows no secret", () => {
    expect(() => parseModelUrl("https://me:secret@example.com/page?token=secret")).toThrow(
      /^((?!secret).)*$/,
    );
  });
});

describe("planUrl", () => {
  test("describes a file", async () => {
    await using site = serve(() =>
      tenBytes({ etag: '"v1"', "last-modified": "Sat, 21 Nov 2026 09:00:00 GMT" }),
    );

    const plan = await planUrl(urlOf(`${site.url}/m/Tiny%20Model.gguf?token=secret`), OPTIONS);

    const [file, ...others] = plan.files;
    expect(others).toEqual([]);
    expect(file).toMatchObject({
      role: "weights",
      path: "Tiny Model.gguf",
      size: 10,
      digest: undefined,
    });
    expect(plan).toMatchObject({
      layout: "gguf",
      created: "2026-11-21T09:00:00Z",
      annotations: {
        "org.opencontainers.image.source": `${site.url}/m/Tiny%20Model.gguf`,
        [REVISION]: '"v1"',
      },
      warnings: [],
    });
    expect(site.requests.map(({ method, url }) => `${method} ${url}`)).toEqual([
      `HEAD ${site.url}/m/Tiny%20Model.gguf?token=secret`,
    ]);
  });

  test("its source has the bytes", async () => {
    await using site = serve(() => tenBytes());
    const { files } = await planUrl(urlOf(`${site.url}/y.gguf`), OPTIONS);

    const opened = await files[0]?.sources[0]?.open({ start: 0, end: 10 }, { signal: SIGNAL });

    expect(await new Response(opened?.body).bytes()).toHaveLength(10);
  });

  test("a password goes with every request", async () => {
    await using site = serve(() => tenBytes());
    const address = site.url.replace("//", "//me:secret@");
    const { files, annotations } = await planUrl(urlOf(`${address}/y.gguf`), OPTIONS);

    const opened = await files[0]?.sources[0]?.open({ start: 0, end: 10 }, { signal: SIGNAL });
    await opened?.body.cancel();

    const sent = site.requests.map(({ authorization }) => authorization);
    expect(sent).toEqual([`Basic ${btoa("me:secret")}`, `Basic ${btoa("me:secret")}`]);
    expect(JSON.stringify(annotations)).not.toContain("secret");
  });

  test("expands one shard to all of them, in order", async () => {
    await using site = serve(({ url }) =>
      tenBytes({ etag: `"${new URL(url).pathname}"`, "last-modified": shardDate(url) }),
    );

    const plan = await planUrl(urlOf(`${site.url}/a%20b/m-00002-of-00006.gguf?k=v`), OPTIONS);

    expect(plan.files.map(({ path }) => path)).toEqual(
      [1, 2, 3, 4, 5, 6].map((number) => `m-0000${number}-of-00006.gguf`),
    );
    expect(plan.created).toBe("2026-01-06T00:00:00Z");
    expect(plan.annotations[REVISION]).toMatch(/^sha256:/);
    expect(site.requests.map(({ url }) => url).toSorted()).toEqual(
      [1, 2, 3, 4, 5, 6].map((number) => `${site.url}/a%20b/m-0000${number}-of-00006.gguf?k=v`),
    );
  });

  test("a missing shard is not found", async () => {
    await using site = serve(({ url }) =>
      url.includes("00003-of") ? new Response("", { status: 404 }) : tenBytes(),
    );

    const plan = planUrl(urlOf(`${site.url}/m-00001-of-00003.gguf`), OPTIONS);

    expect(await failureOf(plan)).toMatchObject({
      code: "not_found",
      message: expect.stringContaining("m-00003-of-00003.gguf"),
    });
  });

  test.each([["m-00000-of-00003.gguf"], ["m-00004-of-00003.gguf"], ["m-1-of-3.gguf"]])(
    "%s is a file like others",
    async (name) => {
      await using site = serve(() => tenBytes());

      const { files } = await planUrl(urlOf(`${site.url}/${name}`), OPTIONS);

      expect(files.map(({ path }) => path)).toEqual([name]);
    },
  );

  test("a model of absurdly many files is refused before anything is asked", async () => {
    await using site = serve(() => tenBytes());

    const plan = planUrl(urlOf(`${site.url}/m-00001-of-99999.gguf`), OPTIONS);

    expect(await failureOf(plan)).toMatchObject({ code: "invalid_reference" });
    expect(site.requests).toEqual([]);
  });

  test.each([[400], [403], [404], [405], [501]])(
    "a server that answers HEAD with %d is asked for the first byte",
    async (status) => {
      await using site = serve(({ method }) =>
        method === "HEAD"
          ? new Response(null, { status })
          : new Response(new Uint8Array(1), {
              status: 206,
              headers: { "content-range": "bytes 0-0/10" },
            }),
      );

      const plan = await planUrl(urlOf(`${site.url}/y.gguf`), OPTIONS);

      expect(plan.files[0]?.size).toBe(10);
      expect(plan.created).toBe("1970-01-01T00:00:00Z");
      expect(plan.annotations[REVISION]).toBeUndefined();
      expect(site.requests.at(-1)?.range).toBe("bytes=0-0");
    },
  );

  test.each([
    [401, "unauthorized"],
    [403, "forbidden"],
    [404, "not_found"],
    [410, "not_found"],
  ])("a refusal of %d is %s", async (status, code) => {
    await using site = serve(() => new Response("", { status }));

    const plan = planUrl(urlOf(`${site.url}/y.gguf?token=secret`), OPTIONS);

    const failure = await failureOf(plan);
    expect(failure).toMatchObject({ code });
    expect(failure.message).not.toContain("secret");
  });

  test.each<[string, Record<string, string>, unknown]>([
    ["says nothing", {}, undefined],
    ["compresses", { "content-encoding": "gzip", "content-length": "10" }, undefined],
    ["says zero", { "content-length": "0" }, undefined],
    ["says 10", { "content-length": "10" }, 10],
  ])("the size of a server that %s", async (_, headers, size) => {
    await using site = rawHead(headers);

    const plan = await planUrl(urlOf(`${site.url}/y.gguf`), OPTIONS);

    expect(plan.files[0]?.size).toBe(size as number);
  });

  test.each<[string, Record<string, string>]>([
    ["no time", { "last-modified": "yesterday" }],
    ["a time before all", { "last-modified": "Sat, 21 Nov 1926 09:00:00 GMT" }],
    ["a time after all", { "last-modified": "Sat, 21 Nov 19026 09:00:00 GMT" }],
    ["an endless state", { etag: `"${"x".repeat(300)}"` }],
  ])("%s counts as unknown", async (_, headers) => {
    await using site = serve(() => tenBytes(headers));

    const plan = await planUrl(urlOf(`${site.url}/y.gguf`), OPTIONS);

    expect(plan.created).toBe("1970-01-01T00:00:00Z");
    expect(plan.annotations[REVISION]).toBeUndefined();
  });

  test("a web page is no model", async () => {
    await using site = serve(() => tenBytes({ "content-type": "text/html; charset=utf-8" }));

    expect(await failureOf(planUrl(urlOf(`${site.url}/y.gguf`), OPTIONS))).toMatchObject({
      code: "unsupported_model",
      message: expect.stringContaining("a web page"),
    });
  });

  test("plain http is for this machine and hosts that were allowed", async () => {
    const asked: string[] = [];
    const http = {
      send: async (address: string) => {
        asked.push(address);
        return tenBytes();
      },
    };
    const url = urlOf("http://models.example.com:81/y.gguf");

    const refused = planUrl(url, { http, signal: SIGNAL });
    expect(await failureOf(refused)).toMatchObject({
      code: "invalid_reference",
      hint: expect.stringContaining("--insecure"),
    });
    expect(asked).toEqual([]);

    await planUrl(url, { http, signal: SIGNAL, isInsecure: isOnPort81 });
    expect(asked).toEqual(["http://models.example.com:81/y.gguf"]);
  });

  test("a name that not every system can have is refused, or mended", async () => {
    await using site = serve(() => tenBytes());

    const mended = await planUrl(urlOf(`${site.url}/a%3Ab%2F..%2Fc%00.gguf`), OPTIONS);
    const device = planUrl(urlOf(`${site.url}/nul.gguf`), OPTIONS);

    expect(mended.files[0]?.path).toBe("a-b-..-c-.gguf");
    expect(await failureOf(device)).toMatchObject({ code: "invalid_model_file" });
  });
});

describe("urlRevision", () => {
  test.each([["y.gguf"], ["y-00001-of-00002.gguf"]])("of %s is the plan's", async (name) => {
    let version = 1;
    await using site = serve(({ url }) => tenBytes({ etag: `"${url.length} ${version}"` }));
    const url = urlOf(`${site.url}/${name}`);
    const { annotations } = await planUrl(url, OPTIONS);

    expect(await urlRevision(url, OPTIONS)).toBe(annotations[REVISION] ?? "");
    version = 2;
    expect(await urlRevision(url, OPTIONS)).not.toBe(annotations[REVISION] ?? "");
  });

  test("is unknown where one server says nothing", async () => {
    await using site = serve(({ url }) =>
      tenBytes(url.includes("00002-of") ? {} : { etag: '"a"' }),
    );

    expect(await urlRevision(urlOf(`${site.url}/y-00001-of-00002.gguf`), OPTIONS)).toBeUndefined();
  });
});

function isOnPort81(host: string): boolean {
  return host === "models.example.com:81";
}

function shardDate(url: string): string {
  const number = /-0000(\d)-of-/.exec(url)?.[1] ?? "1";
  return new Date(`2026-01-0${number}T00:00:00Z`).toUTCString();
}

/** A server whose answer to HEAD has exactly these headers. */
function rawHead(headers: Record<string, string>): AsyncDisposable & { readonly url: string } {
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  const server = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      data(socket) {
        socket.end(`HTTP/1.1 200 OK\r\nconnection: close\r\n${lines.join("")}\r\n`);
      },
    },
  });
  return {
    url: `http://127.0.0.1:${server.port}`,
    async [Symbol.asyncDispose]() {
      server.stop(true);
    },
  };
}
