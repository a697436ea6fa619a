import { describe, expect, test } from "bun:test";
import { chmod, mkdir, readdir, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { mlx } from "../../../backends/mlx/index.ts";
import type { InstallProgress, SourceContext } from "../../../src/runtime/installer/source.ts";
import {
  findLink,
  findUv,
  indexVariables,
  type UvRelease,
} from "../../../src/runtime/installer/uv.ts";
import { tempDir } from "../../helpers/temp-dir.ts";
import { isWindows, testIf } from "../../helpers/test-if.ts";
import { failureOf } from "./failure-of.ts";
import { loopbackRemotes } from "./remotes.ts";
import { storedZip } from "./stored-zip.ts";

const posix = testIf(!isWindows, "programs are scripts here");

const VERSION = "9.9.9";
const FILE = `uv-${VERSION}-py3-none-manylinux.whl`;
const SCRIPT = `#!/bin/sh\necho "uv ${VERSION}"\n${"# padding\n".repeat(10_000)}`;
const WHEEL = storedZip({
  [`uv-${VERSION}.data/scripts/uv`]: SCRIPT,
  [`uv-${VERSION}.dist-info/METADATA`]: "Name: uv\n",
});

function sha256(bytes: Uint8Array): string {
  return new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
}

function release(wheel = WHEEL, digest = sha256(wheel)): UvRelease {
  const entry = { file: FILE, sha256: digest, bytes: wheel.length };
  return { version: VERSION, wheels: { "linux-x64": entry } };
}

interface Asked {
  readonly path: string;
  readonly authorization: string | null;
  readonly range: string | null;
}

interface Bench extends AsyncDisposable {
  readonly url: string;
  readonly cache: string;
  readonly asked: Asked[];
  readonly events: InstallProgress[];
  context(overrides?: Partial<SourceContext>): SourceContext;
}

interface IndexOptions {
  /** Given instead of a JSON page. */
  readonly page?: (url: string) => Response | Promise<Response>;
  readonly wheel?: Uint8Array<ArrayBuffer>;
}

const WHEEL_PATH = `/files/ab/${FILE}`;

/** A package index on this machine that has one version of uv. */
async function bench({ page, wheel = WHEEL }: IndexOptions = {}): Promise<Bench> {
  const directory = await tempDir();
  const cache = join(directory.path, "cache");
  const asked: Asked[] = [];
  const events: InstallProgress[] = [];
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch: (request) => {
      const { pathname: path } = new URL(request.url);
      const { headers } = request;
      const range = headers.get("range");
      asked.push({ path, authorization: headers.get("authorization"), range });
      if (path === "/simple/uv/") return page?.(request.url) ?? jsonPage(`../..${WHEEL_PATH}`);
      if (path !== WHEEL_PATH) return new Response("no", { status: 404 });
      const start = Number(/^bytes=(\d+)-/.exec(range ?? "")?.[1] ?? 0);
      const size = wheel.length;
      return new Response(wheel.subarray(start), {
        status: range === null ? 200 : 206,
        headers: range === null ? {} : { "content-range": `bytes ${start}-${size - 1}/${size}` },
      });
    },
  });
  const url = `http://127.0.0.1:${server.port}`;
  return {
    url,
    cache,
    asked,
    events,
    context: (overrides) => ({
      backend: mlx,
      machine: { platform: "linux", arch: "x64" },
      env: { PATH: "", UV_DEFAULT_INDEX: `${url}/simple` },
      cacheDirectory: cache,
      dataDirectory: join(directory.path, "data"),
      remotes: loopbackRemotes(),
      signal: AbortSignal.timeout(20_000),
      onProgress: (event) => void events.push(event),
      ...overrides,
    }),
    [Symbol.asyncDispose]: async () => {
      await server.stop(true);
      await directory[Symbol.asyncDispose]();
    },
  };
}

function jsonPage(url: string): Response {
  const others = { filename: "uv-0.0.1.tar.gz", url: "other" };
  return Response.json({ files: [others, { filename: FILE, url }] });
}

/** A directory with a `uv` that says a version. */
async function uvOnPath(it: Bench, script: string): Promise<string> {
  const directory = join(it.cache, "..", "bin");
  await mkdir(directory, { recursive: true });
  await writeFile(join(directory, "uv"), `#!/bin/sh\n${script}\n`);
  await chmod(join(directory, "uv"), 0o755);
  return directory;
}

async function messageOf(promise: Promise<unknown>): Promise<string> {
  return ((await failureOf(promise)) as Error).message;
}

describe("findUv", () => {
  posix(
    "uv: its wheel is found, checked, unpacked and works; the next one finds it there",
    async () => {
      await using it = await bench();

      const program = await findUv(it.context(), release());
      const again = await findUv(it.context(), release());

      expect(program).toBe(join(it.cache, `uv-${VERSION}`, "uv"));
      expect(again).toBe(program);
      expect((await stat(program)).mode & 0o777).toBe(0o755);
      expect(Bun.spawnSync([program]).stdout.toString()).toBe(`uv ${VERSION}\n`);
      expect(it.asked.map(({ path }) => path)).toEqual(["/simple/uv/", WHEEL_PATH]);
      expect(it.events.at(-1)).toEqual({
        type: "progress",
        id: "uv",
        phase: "downloading",
        done_bytes: WHEEL.length,
        total_bytes: WHEEL.length,
      });
      expect((await readdir(it.cache)).toSorted()).toEqual([
        "downloads",
        `uv-${VERSION}`,
        "uv.lock",
      ]);
      expect(await readdir(join(it.cache, "downloads"))).toEqual([]);
    },
  );

  test.each([
    ["uv's", { UV_DEFAULT_INDEX: "URL", UV_INDEX_URL: "x", PIP_INDEX_URL: "x" }],
    ["uv's former", { UV_DEFAULT_INDEX: "", UV_INDEX_URL: "URL", PIP_INDEX_URL: "x" }],
    ["pip's", { PIP_INDEX_URL: "URL/" }],
  ] as const)("uv: the index may be named by %s variable", async (_, variables) => {
    await using it = await bench();
    const entries = Object.entries(variables).map(([name, value]) => [
      name,
      value.replace("URL", `${it.url}/simple`),
    ]);
    const env: Record<string, string> = { PATH: "", ...Object.fromEntries(entries) };

    await findUv(it.context({ env }), release());

    expect(it.asked).toHaveLength(2);
    expect(indexVariables(env)["UV_DEFAULT_INDEX"]).toStartWith(`${it.url}/simple`);
  });

  test("uv: without an index of their own uv is told of none", () => {
    expect(indexVariables({ UV_DEFAULT_INDEX: "" })).toEqual({});
  });

  test("uv: an account in the index's address is for its origin, and for no other", async () => {
    await using it = await bench();
    await using elsewhere = await bench({ page: () => jsonPage(`${it.url}${WHEEL_PATH}`) });
    const named = (url: string): SourceContext =>
      it.context({
        cacheDirectory: join(it.cache, new URL(url).port),
        env: { PATH: "", PIP_INDEX_URL: url.replace("//", "//me:p%40ss@") + "/simple" },
      });

    await findUv(named(it.url), release());
    await findUv(named(elsewhere.url), release());

    const basic = `Basic ${btoa("me:p@ss")}`;
    expect(it.asked.map(({ authorization }) => authorization)).toEqual([basic, basic, null]);
    expect(elsewhere.asked.map(({ authorization }) => authorization)).toEqual([basic]);
  });

  test("uv: links are relative to where the index has moved", async () => {
    await using moved = await bench();
    await using it = await bench({ page: () => Response.redirect(`${moved.url}/simple/uv/`) });

    await findUv(it.context(), release());

    expect(moved.asked.map(({ path }) => path)).toEqual(["/simple/uv/", WHEEL_PATH]);
  });

  test("uv: a download that was cut goes on where it stopped", async () => {
    await using it = await bench();
    const { sha256: digest } = release().wheels["linux-x64"] ?? { sha256: "" };
    await mkdir(join(it.cache, "downloads"), { recursive: true });
    await writeFile(join(it.cache, "downloads", `${digest}.part`), WHEEL.subarray(0, 5000));

    const program = await findUv(it.context(), release());

    expect(it.asked.at(-1)?.range).toBe("bytes=5000-");
    expect(await Bun.file(program).text()).toBe(SCRIPT);
  });

  test("uv: what is not what was announced is not used", async () => {
    await using it = await bench();

    const failure = await failureOf(findUv(it.context(), release(WHEEL, "0".repeat(64))));

    expect(failure).toMatchObject({ code: "digest_mismatch" });
    expect((await readdir(it.cache)).toSorted()).toEqual(["downloads", "uv.lock"]);
    expect(await readdir(join(it.cache, "downloads"))).toEqual([]);
  });

  test("uv: a wheel without it is refused, and leaves nothing", async () => {
    const wheel = storedZip({ [`uv-${VERSION}.data/scripts/readme`]: "none" });
    await using it = await bench({ wheel });

    expect(await messageOf(findUv(it.context(), release(wheel)))).toBe(
      `\`${FILE}\` has no uv in it`,
    );
    expect((await readdir(it.cache)).toSorted()).toEqual(["downloads", "uv.lock"]);
  });

  test.each([
    ["404", () => new Response("no", { status: 404 }), "the package index answered 404"],
    ["no wheel", () => Response.json({ files: [] }), `the package index has no \`${FILE}\``],
    ["no JSON", () => new Response("{"), `the package index has no \`${FILE}\``],
    ["other JSON", () => Response.json({ files: 7 }), `the package index has no \`${FILE}\``],
    ["nulls", () => Response.json({ files: [null] }), `the package index has no \`${FILE}\``],
    ["no address", () => jsonPage("http://["), `the package index has no \`${FILE}\``],
    ["nothing", () => new Response(""), `the package index has no \`${FILE}\``],
  ] as const)("uv: an index with %s is refused in a clause", async (...[, page, message]) => {
    await using it = await bench({ page });

    expect(await messageOf(findUv(it.context(), release()))).toBe(message);
  });

  test("uv: a page that is too large is not read", async () => {
    const headers = { "content-length": String(64 * 1024 * 1024) };
    await using it = await bench({
      page: () => new Response(new Blob([new Uint8Array(64 * 1024 * 1024)]), { headers }),
    });

    expect(await failureOf(findUv(it.context(), release()))).toMatchObject({
      code: "request_too_large",
    });
  });

  test("uv: an abort while the index thinks is passed on at once", async () => {
    const controller = new AbortController();
    await using it = await bench({
      page: () => {
        controller.abort(new Error("enough"));
        return new Promise<Response>(() => undefined);
      },
    });

    const finding = findUv(it.context({ signal: controller.signal }), release());

    expect(await messageOf(finding)).toBe("enough");
  });

  test("uv: a machine that there is none for is told so, and nobody is asked", async () => {
    await using it = await bench();
    const machine = { platform: "freebsd", arch: "riscv64" } as const;

    expect(await messageOf(findUv(it.context({ machine }), release()))).toBe(
      "there is no uv for freebsd riscv64",
    );
    expect(it.asked).toEqual([]);
  });

  test("uv: several at once download it once", async () => {
    await using it = await bench();

    const found = await Promise.all(
      Array.from({ length: 4 }, () => findUv(it.context(), release())),
    );

    expect(new Set(found).size).toBe(1);
    expect(it.asked).toHaveLength(2);
  });

  test("uv: what a killed one left is no obstacle, and goes", async () => {
    await using it = await bench();
    await mkdir(join(it.cache, ".uv-abcdef", "half"), { recursive: true });
    await mkdir(join(it.cache, `uv-${VERSION}`, "without-a-program"), { recursive: true });

    const program = await findUv(it.context(), release());

    expect(await Bun.file(program).exists()).toBe(true);
    expect(await readdir(join(it.cache, `uv-${VERSION}`))).toEqual(["uv"]);
    expect((await readdir(it.cache)).filter((name) => name.startsWith(".uv-"))).toEqual([]);
  });
});

describe("a uv of the user's own", () => {
  posix("uv: a recent one is used, and nobody is asked", async () => {
    await using it = await bench();
    const PATH = await uvOnPath(it, 'echo "uv 0.8.0 (abc 2025-01-01)"');

    expect(await findUv(it.context({ env: { PATH } }), release())).toBe(join(PATH, "uv"));
    expect(it.asked).toEqual([]);
  });

  for (const [what, script] of [
    ["is too old", "echo uv 0.4.30"],
    ["is something else", "echo ultraviolet 12.0.0"],
    ["fails", "exit 3"],
  ] as const) {
    posix(`uv: one that ${what} is passed over`, async () => {
      await using it = await bench();
      const PATH = await uvOnPath(it, script);
      const env = { PATH, UV_DEFAULT_INDEX: `${it.url}/simple` };

      expect(await findUv(it.context({ env }), release())).toStartWith(it.cache);
    });
  }
});

describe("findLink", () => {
  const page = (link: string): string => `<!DOCTYPE html><html><body>
    <a href="uv-0.0.1.whl#sha256=00">uv-0.0.1.whl</a><br/>
    <a data-requires-python="&gt;=3.8" href="${link}" data-dist-info-metadata="true">${FILE}</a>`;

  test.each([
    [
      "absolute",
      `https://files.example.com/ab/${FILE}#sha256=00`,
      `https://files.example.com/ab/${FILE}`,
    ],
    ["relative", `../../packages/${FILE}#sha256=00`, `../../packages/${FILE}`],
    ["beside the page", `${FILE}#sha256=00`, FILE],
    ["with a query", `/f/${FILE}?a=1&amp;b=2#sha256=00`, `/f/${FILE}?a=1&b=2`],
    ["encoded", `/f/${FILE.replace("-", "%2D")}`, `/f/${FILE.replace("-", "%2D")}`],
  ])("uv: a link that is %s is found on a page", (...[, link, found]) => {
    expect(findLink(page(link), FILE)).toBe(found);
    expect(findLink(page(link).replaceAll('"', "'"), FILE)).toBe(found);
  });

  test.each([
    ["of another file that ends so", `/f/x-${FILE}`],
    ["in a query", `/f/other?/${FILE}`],
    ["encoded badly", `/f/%E0%A4%A${FILE}`],
  ])("uv: a link %s is not the one", (_, link) => {
    expect(findLink(page(link), FILE)).toBeUndefined();
  });

  test("uv: a hostile page takes no time", () => {
    const startMs = performance.now();

    findLink("<a ".repeat(300_000), FILE);
    findLink("<a href='".repeat(100_000), FILE);

    expect(performance.now() - startMs).toBeLessThan(1000);
  });
});
