import { afterAll, describe, expect, test } from "bun:test";
import type { AppError } from "../../src/errors.ts";
import { searchModels, type SearchQuery } from "../../src/models/search.ts";
import type { Remotes } from "../../src/models/remotes.ts";

const HUB_REPOSITORIES = [
  { name: "smollm2", description: "A tiny\u001B[2J\u0007 model", pull_count: 900, star_count: 3 },
  { name: "gemma3", description: "Google's open model", pull_count: 500, star_count: 9 },
  { name: "qwen3", description: null, pull_count: 100, star_count: 1 },
];

let requests: string[] = [];
const server = Bun.serve({
  port: 0,
  hostname: "127.0.0.1",
  fetch(request) {
    const { pathname, searchParams } = new URL(request.url);
    requests.push(pathname);
    if (pathname.startsWith("/broken")) return new Response("<html>", { status: 200 });
    if (pathname.startsWith("/down")) return new Response("no", { status: 403 });
    const page = Number(searchParams.get("page"));
    const results = HUB_REPOSITORIES.slice((page - 1) * 2, page * 2);
    return Response.json({ next: page === 1 ? "more" : null, results });
  },
});
afterAll(() => server.stop(true));

const base = `http://127.0.0.1:${server.port}`;

function search(query: Partial<SearchQuery>, hubEndpoint = base) {
  requests = [];
  const remotes = {
    http: {
      send: (url: string, init: RequestInit) => fetch(url, { ...init, proxy: "" } as RequestInit),
    },
    huggingFace: { endpoint: `${base}/broken`, token: () => undefined },
  } as unknown as Remotes;
  const signal = AbortSignal.timeout(5000);
  const warnings: string[] = [];
  const full: SearchQuery = { text: "", source: "docker", limit: 10, ...query };
  const options = { signal, hubEndpoint, onWarning: (text: string) => void warnings.push(text) };
  return searchModels(remotes, full, options);
}

describe("searching Docker Hub", () => {
  test("every word must be in the name or the description", async () => {
    const found = await search({ text: "Tiny MODEL" });
    expect(found.map(({ name }) => name)).toEqual(["smollm2"]);
    expect(found[0]).toMatchObject({ source: "docker", downloads: 900, likes: 3, official: true });
    expect(found[0]?.description).toBe("A tiny [2J model");
  });

  test("pages are followed until there are enough", async () => {
    expect((await search({})).length).toBe(3);
    expect(requests.length).toBe(2);
    expect((await search({ limit: 1 })).length).toBe(1);
    expect(requests.length).toBe(1);
  });

  test("an answer that is no JSON is an error that is not repeated", async () => {
    const failure = await search({}, `${base}/broken`).catch((error: unknown) => error);
    expect((failure as AppError).code).toBe("registry_unavailable");
    expect((failure as AppError).message).toBe(
      "cannot search Docker Hub: its answer is not readable",
    );
    expect(requests.length).toBe(1);
  });

  test("a refusal names the status", async () => {
    const failure = await search({}, `${base}/down`).catch((error: unknown) => error);
    expect((failure as AppError).message).toContain("status 403");
  });
});
