/**
 * A small Hugging Face: the routes of its API and of its files that Tug uses, and the host that its files redirect to. It
 * follows the public documentation (https://huggingface.co/docs/hub/api, https://huggingface.co/docs/hub/rate-limits) and
 * the types of `@huggingface/hub`; nothing of it was recorded.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "../../scripts/compile/freshness.ts";

export interface FakeRepository {
  /** `Org/Repo`; asked for without regard to case. */
  readonly id: string;
  /** 40 hexadecimal digits. */
  readonly commit: string;
  /** Commits of branches and tags besides `main`. */
  readonly revisions?: Readonly<Record<string, string>>;
  readonly lastModified?: string;
  readonly gated?: false | "auto" | "manual";
  readonly private?: boolean;
  readonly license?: string | readonly string[];
  readonly licenseName?: string;
  readonly tags?: readonly string[];
  readonly downloads?: number;
  readonly likes?: number;
  readonly task?: string;
  /** Rows of the tree route, as they are sent. */
  readonly entries: readonly unknown[];
  /** By path. What is listed without being here cannot be fetched. */
  readonly contents?: ReadonlyMap<string, Uint8Array<ArrayBuffer>>;
}

export interface FakeHuggingFace extends Disposable {
  /** For `HF_ENDPOINT`. */
  readonly endpoint: string;
  /** Methods and paths asked of the endpoint, with their queries; of the other host, with `cdn` before them. */
  readonly requests: string[];
  /** What arrived as `Authorization` at the host of the files: it has no business there. */
  readonly leaks: string[];
  readonly repositories: FakeRepository[];
  /** Tokens of accounts; those that were let into gated repositories. */
  readonly tokens: Set<string>;
  readonly accepted: Set<string>;
  /** Answers the next requests to the endpoint with these first. */
  readonly next: (() => Response)[];
  /** Entries of a page of a listing. */
  pageSize: number;
  /** The address that `Link` gives for the next page, from its path and query. */
  linkTo: (pathAndQuery: string) => string;
}

/** A file as the tree route lists it. */
export function fakeEntry(path: string, content: Uint8Array, isLfs: boolean): unknown {
  const hash = (algorithm: "sha1" | "sha256"): string =>
    new Bun.CryptoHasher(algorithm).update(content).digest("hex");
  const { length } = content;
  const lfs = { oid: hash("sha256"), size: length, pointerSize: 134 };
  return { type: "file", path, size: length, oid: hash("sha1"), ...(isLfs ? { lfs } : {}) };
}

/** A repository that can be fetched; weights are in large-file storage, other files are not. */
export function fakeRepository(
  id: string,
  files: Readonly<Record<string, Uint8Array<ArrayBuffer> | string>>,
  more: Partial<FakeRepository> = {},
): FakeRepository {
  const contents = new Map(
    Object.entries(files).map(([path, content]) => [path, Buffer.from(content)]),
  );
  const entries = [...contents].map(([path, content]) =>
    fakeEntry(path, content, /\.(?:gguf|safetensors|bin)$/.test(path)),
  );
  const commit = new Bun.CryptoHasher("sha1")
    .update(id)
    .update(JSON.stringify(entries))
    .digest("hex");
  return { id, commit, entries, contents, ...more };
}

/** One of `test/fixtures/hugging-face`: a listing only. */
export function fixtureRepository(name: "gguf" | "safetensors" | "pickles"): FakeRepository {
  const path = join(ROOT, "test", "fixtures", "hugging-face", `${name}.json`);
  return JSON.parse(readFileSync(path, "utf8")) as FakeRepository;
}

export function fakeHuggingFace(repositories: readonly FakeRepository[] = []): FakeHuggingFace {
  const cdn = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch: (request) => serveBlob(fake, request),
  });
  const hub = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch: (request) => route(fake, cdn.url.origin, request),
  });
  const endpoint = hub.url.origin;
  const fake: FakeHuggingFace = {
    endpoint,
    requests: [],
    leaks: [],
    repositories: [...repositories],
    tokens: new Set(),
    accepted: new Set(),
    next: [],
    pageSize: 1000,
    linkTo: (pathAndQuery) => `${endpoint}${pathAndQuery}`,
    [Symbol.dispose]: () => {
      void hub.stop(true);
      void cdn.stop(true);
    },
  };
  return fake;
}

// --- internal ---

function route(fake: FakeHuggingFace, cdn: string, request: Request): Response {
  const url = new URL(request.url);
  fake.requests.push(`${request.method} ${url.pathname}${url.search}`);
  const prepared = fake.next.shift();
  if (prepared !== undefined) return prepared();
  const token = request.headers.get("authorization")?.replace(/^Bearer /, "");
  if (token !== undefined && !fake.tokens.has(token)) {
    return refuse(401, { message: "Invalid credentials in Authorization header" });
  }
  if (url.pathname === "/api/models") return search(fake, url);
  const api = /^\/api\/models\/([^/]+\/[^/]+)\/(revision|tree)\/([^/]+)(?:\/(.*))?$/.exec(
    url.pathname,
  );
  const file = /^\/([^/]+\/[^/]+)\/resolve\/([^/]+)\/(.+)$/.exec(url.pathname);
  const [id, revision] = api === null ? [file?.[1], file?.[2]] : [api[1], api[3]];
  const found = findRepository(fake, { id, revision: decodeURIComponent(revision ?? ""), token });
  if (found instanceof Response) return found;
  if (file !== null) {
    return resolve(fake, found, { request, cdn, token, path: decodeURIComponent(file[3] ?? "") });
  }
  return api?.[2] === "tree" ? tree(fake, found.repository, url) : describe(found, url);
}

interface Found {
  readonly repository: FakeRepository;
  readonly commit: string;
}

function findRepository(
  fake: FakeHuggingFace,
  asked: { id: string | undefined; revision: string; token: string | undefined },
): Found | Response {
  const { id, revision, token } = asked;
  const repository = fake.repositories.find((one) => one.id.toLowerCase() === id?.toLowerCase());
  if (repository === undefined || (repository.private === true && token === undefined)) {
    const status = token === undefined ? 401 : 404;
    return refuse(status, { code: "RepoNotFound", message: "Repository not found" });
  }
  const commits: Readonly<Record<string, string>> = {
    main: repository.commit,
    HEAD: repository.commit,
    ...repository.revisions,
  };
  const known = [repository.commit, ...Object.values(repository.revisions ?? {})];
  const commit = commits[revision] ?? known.find((one) => one === revision);
  if (commit === undefined) {
    return refuse(404, { code: "RevisionNotFound", message: `Invalid rev id: ${revision}` });
  }
  return { repository, commit };
}

/** Only what is asked for with `expand` is told, besides the names. */
function describe({ repository, commit }: Found, url: URL): Response {
  return Response.json(expanded(repository, commit, url));
}

function expanded(repository: FakeRepository, commit: string, url: URL): unknown {
  const { id, license, licenseName, gated = false, downloads = 0, likes = 0 } = repository;
  const all: Readonly<Record<string, unknown>> = {
    sha: commit,
    lastModified: repository.lastModified ?? "2025-01-02T03:04:05.000Z",
    gated,
    private: repository.private ?? false,
    downloads,
    likes,
    pipeline_tag: repository.task ?? "text-generation",
    cardData:
      license === undefined
        ? undefined
        : { license, ...(licenseName === undefined ? {} : { license_name: licenseName }) },
  };
  const asked = url.searchParams.getAll("expand").map((key) => [key, all[key]]);
  return { _id: "65f0c0ffee", id, ...Object.fromEntries(asked) };
}

function tree(fake: FakeHuggingFace, { entries }: FakeRepository, url: URL): Response {
  const start = Number(url.searchParams.get("cursor") ?? 0);
  const end = start + fake.pageSize;
  const headers = new Headers();
  if (end < entries.length) {
    url.searchParams.set("cursor", String(end));
    headers.set("link", `<${fake.linkTo(`${url.pathname}${url.search}`)}>; rel="next"`);
  }
  return Response.json(entries.slice(start, end), { headers });
}

function search(fake: FakeHuggingFace, url: URL): Response {
  const query = url.searchParams.get("search")?.toLowerCase() ?? "";
  const tag = url.searchParams.get("filter");
  const limit = Number(url.searchParams.get("limit") ?? 30);
  const found = fake.repositories
    .filter(
      ({ id, tags = [] }) =>
        id.toLowerCase().includes(query) && (tag === null || tags.includes(tag)),
    )
    .toSorted((left, right) => (right.downloads ?? 0) - (left.downloads ?? 0));
  const rows = found
    .slice(0, limit)
    .map((repository) => expanded(repository, repository.commit, url));
  return Response.json(rows);
}

interface Resolving {
  readonly request: Request;
  readonly cdn: string;
  readonly token: string | undefined;
  readonly path: string;
}

/** Large files are elsewhere; their addresses carry a signature of their own. */
function resolve(fake: FakeHuggingFace, { repository, commit }: Found, asked: Resolving): Response {
  const { request, cdn, token, path } = asked;
  if (repository.gated !== undefined && repository.gated !== false) {
    if (token === undefined)
      return refuse(401, { code: "GatedRepo", message: "Access is restricted" });
    if (!fake.accepted.has(token)) {
      return refuse(403, { code: "GatedRepo", message: "You are not in the authorized list" });
    }
  }
  const content = repository.contents?.get(path);
  if (content === undefined)
    return refuse(404, { code: "EntryNotFound", message: "Entry not found" });
  const headers = { "x-repo-commit": commit };
  if (!isLarge(repository, path)) return answerRange(content, request, headers);
  const digest = new Bun.CryptoHasher("sha256").update(content).digest("hex");
  return new Response(null, {
    status: 302,
    headers: {
      ...headers,
      location: `${cdn}/${digest}?X-Signature=secret`,
      "x-linked-size": String(content.length),
      "x-linked-etag": `"${digest}"`,
    },
  });
}

function isLarge({ entries }: FakeRepository, path: string): boolean {
  return entries.some((entry) => {
    const { path: listed, lfs } = entry as { path?: unknown; lfs?: unknown };
    return listed === path && lfs !== undefined;
  });
}

function serveBlob(fake: FakeHuggingFace, request: Request): Response {
  const url = new URL(request.url);
  fake.requests.push(`cdn ${request.method} ${url.pathname}`);
  const authorization = request.headers.get("authorization");
  if (authorization !== null) {
    fake.leaks.push(authorization);
    return new Response("two credentials", { status: 400 });
  }
  if (url.searchParams.get("X-Signature") !== "secret") return new Response("no", { status: 403 });
  for (const { contents } of fake.repositories) {
    for (const content of contents?.values() ?? []) {
      const digest = new Bun.CryptoHasher("sha256").update(content).digest("hex");
      if (url.pathname === `/${digest}`) return answerRange(content, request, {});
    }
  }
  return new Response("not found", { status: 404 });
}

function answerRange(
  content: Uint8Array<ArrayBuffer>,
  request: Request,
  headers: Readonly<Record<string, string>>,
): Response {
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.get("range") ?? "");
  if (range === null) return new Response(content, { headers });
  const start = Number(range[1]);
  const end = range[2] === "" ? content.length : Math.min(Number(range[2]) + 1, content.length);
  if (start >= content.length) return new Response(null, { status: 416 });
  return new Response(content.subarray(start, end), {
    status: 206,
    headers: { ...headers, "content-range": `bytes ${start}-${end - 1}/${content.length}` },
  });
}

function refuse(status: number, { code, message }: { code?: string; message: string }): Response {
  const headers = {
    "x-error-message": message,
    ...(code === undefined ? {} : { "x-error-code": code }),
  };
  return Response.json({ error: message }, { status, headers });
}
