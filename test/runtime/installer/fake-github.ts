/** A small GitHub: one repository's releases and their assets, with switches to misbehave. */

export interface FakeAsset {
  readonly name: string;
  readonly content: Uint8Array;
  /** Announced instead of the true one. */
  readonly digest?: string | null;
  readonly size?: number;
}

export interface FakeGithub extends Disposable {
  readonly url: string;
  /** Paths asked for, with the Range header in brackets where there was one. */
  readonly requests: string[];
  /** Closes asset connections after so many bytes, once for each number. */
  readonly cuts: number[];
  /** Answers requests for assets with these statuses first. */
  readonly assetStatuses: number[];
  /** Answers whole files whatever Range says. */
  ignoreRange: boolean;
  /** Answers every request with this status. */
  status: number | undefined;
  /** Awaited before each asset is served. */
  gate: Promise<void>;
}

export function fakeGithub(release: string, assets: readonly FakeAsset[]): FakeGithub {
  const requests: string[] = [];
  const cuts: number[] = [];
  const assetStatuses: number[] = [];
  const state = { ignoreRange: false, status: undefined, gate: Promise.resolve() };
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch: async (request) => {
      const { pathname } = new URL(request.url);
      const range = request.headers.get("range");
      requests.push(range === null ? pathname : `${pathname} [${range}]`);
      if (fake.status !== undefined) return new Response("no", { status: fake.status });
      if (pathname === `/repos/ggml-org/llama.cpp/releases/tags/${release}`) {
        return Response.json({ assets: assets.map((asset) => describeAsset(asset, fake.url)) });
      }
      const asset = assets.find(({ name }) => pathname === `/download/${name}`);
      if (asset === undefined) return new Response("Not Found", { status: 404 });
      await fake.gate;
      const status = assetStatuses.shift();
      if (status !== undefined) return new Response("no", { status });
      return answer(asset.content, fake.ignoreRange ? null : range, cuts.shift());
    },
  });
  const fake: FakeGithub = Object.assign(state, {
    url: `http://127.0.0.1:${server.port}`,
    requests,
    cuts,
    assetStatuses,
    [Symbol.dispose]: () => void server.stop(true),
  });
  return fake;
}

function describeAsset(asset: FakeAsset, url: string): Record<string, unknown> {
  const sha256 = new Bun.CryptoHasher("sha256").update(asset.content).digest("hex");
  return {
    name: asset.name,
    size: asset.size ?? asset.content.length,
    digest: asset.digest === undefined ? `sha256:${sha256}` : asset.digest,
    browser_download_url: `${url}/download/${asset.name}`,
  };
}

function answer(content: Uint8Array, range: string | null, cut: number | undefined): Response {
  const start = Number(/^bytes=(\d+)-$/.exec(range ?? "")?.[1] ?? 0);
  const rest = content.subarray(start);
  const headers = {
    "content-length": String(rest.length),
    ...(range === null
      ? {}
      : { "content-range": `bytes ${start}-${content.length - 1}/${content.length}` }),
  };
  const status = range === null ? 200 : 206;
  if (cut === undefined) return new Response(rest, { status, headers });
  const body = new ReadableStream({
    async pull(controller) {
      controller.enqueue(rest.slice(0, cut));
      // Lets the bytes leave before the connection breaks.
      await Bun.sleep(20);
      controller.close();
    },
  });
  return new Response(body, { status, headers });
}
