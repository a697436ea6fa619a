import { describe, expect, test } from "bun:test";
import { type FakeRegistry, startFakeRegistry } from "../fakes/registry.ts";
import { registryClient } from "../models/remote-registry.ts";
import { blobOf, memorySource, noise } from "./upload-helpers.ts";
import { failureOf } from "../store/failure-of.ts";

const NEVER = new AbortController().signal;
const AUTH = { scheme: "bearer", username: "me", password: "secret" } as const;
const CREDENTIAL = { username: "me", password: "secret", source: "a test" };

function repository({ host }: FakeRegistry, name = "me/model") {
  return registryClient({ credential: CREDENTIAL }).registry.repository({
    registry: host,
    repository: name,
  });
}

async function send(registry: FakeRegistry, bytes: Uint8Array, mountFrom: string[] = []) {
  const options = { signal: NEVER, mountFrom };
  return repository(registry).upload(blobOf(bytes), memorySource(bytes), options);
}

describe("an upload with tokens", () => {
  test("gets one token for the question, the session and the bytes", async () => {
    await using registry = await startFakeRegistry({ auth: AUTH });

    const outcome = await send(registry, noise(10_000));

    expect(outcome).toBe("uploaded");
    expect(registry.requests.filter(({ path }) => path === "/token")).toHaveLength(1);
  });

  test("whose token runs out amid it gets another and loses nothing", async () => {
    await using registry = await startFakeRegistry({ auth: AUTH });
    registry.fault({ kind: "expire", method: "PUT", times: 1 });
    const bytes = noise(10_000);

    const outcome = await send(registry, bytes);

    expect(outcome).toBe("uploaded");
    expect(registry.count("POST", "/uploads/")).toBe(1);
    expect(registry.count("PUT")).toBe(2);
    expect(registry.requests.filter(({ path }) => path === "/token")).toHaveLength(2);
  });

  test("asks to read the repository that it mounts from", async () => {
    await using registry = await startFakeRegistry({ auth: AUTH });
    const bytes = noise(100);
    await repository(registry, "me/other").upload(blobOf(bytes), memorySource(bytes), {
      signal: NEVER,
    });

    const outcome = await send(registry, bytes, ["me/other"]);

    expect(outcome).toBe("mounted");
  });

  test("sends no credential to another host that the location names", async () => {
    const elsewhere = { requests: [] as { authorization: string | null; bytes: number }[] };
    using storage = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch: async (request) => {
        const authorization = request.headers.get("authorization");
        const { length } = await request.bytes();
        elsewhere.requests.push({ authorization, bytes: length });
        return new Response(null, { status: 201 });
      },
    });
    await using registry = await startFakeRegistry({
      auth: AUTH,
      location: (path) => `http://127.0.0.1:${storage.port}${path}&signature=a%2Fb`,
    });

    const outcome = await send(registry, noise(10_000));

    expect(outcome).toBe("uploaded");
    expect(elsewhere.requests).toEqual([{ authorization: null, bytes: 10_000 }]);
    const post = registry.requests.find(
      ({ method, status }) => method === "POST" && status === 202,
    );
    expect(post?.headers["authorization"]).toStartWith("Bearer ");
  });

  test("that may not write says so", async () => {
    await using registry = await startFakeRegistry({ auth: { ...AUTH, password: "other" } });

    const failure = await failureOf(send(registry, noise(10)));

    expect(failure.code).toBe("unauthorized");
    expect(registry.openUploads()).toBe(0);
  });
});
