import { describe, expect, test } from "bun:test";
import { join } from "node:path";

import { addressAttributes, engineTarget, takeFreePort } from "../../src/runtime/engine-address.ts";
import { probeEngine } from "../../src/runtime/engine-ask.ts";
import { tempDir } from "../helpers/temp-dir.ts";

const fetched = (request: Request): Response => new Response(new URL(request.url).pathname);

async function ask(address: string | number): Promise<string> {
  const { url, init } = engineTarget(address, "/a/b?c=d");
  return (await fetch(url, init)).text();
}

describe("engineTarget", () => {
  test("address: a path is a unix socket", async () => {
    await using directory = await tempDir();
    const unix = join(directory.path, "e.sock");
    using _server = Bun.serve({ unix, fetch: fetched });

    expect(await ask(unix)).toBe("/a/b");
  });

  test("address: a number is a port of 127.0.0.1", async () => {
    using server = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: fetched });

    expect(await ask(server.port ?? 0)).toBe("/a/b");
    expect(await probeEngine(server.port ?? 0, "/health")).toBe(200);
  });

  test("address: a port is asked without a proxy", async () => {
    using server = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: fetched });
    const module = join(import.meta.dir, "../../src/runtime/engine-ask.ts");
    const script = `console.log(await (await import(${JSON.stringify(module)})).probeEngine(${server.port}, "/"))`;

    const child = Bun.spawn([process.execPath, "-e", script], {
      env: { PATH: process.env["PATH"] ?? "", HTTP_PROXY: "http://127.0.0.1:1" },
      stdout: "pipe",
    });

    expect((await child.stdout.text()).trim()).toBe("200");
  });

  test("address: in traces it is named by what it is", () => {
    expect(addressAttributes("/run/w1/e.sock")).toEqual({
      "server.address": "/run/w1/e.sock",
      "network.transport": "unix",
    });
    expect(addressAttributes(4000)).toEqual({
      "server.address": "127.0.0.1",
      "server.port": 4000,
      "network.transport": "tcp",
    });
  });
});

describe("takeFreePort", () => {
  test("port: somebody can listen on it at once", () => {
    const port = takeFreePort();

    using server = Bun.serve({ hostname: "127.0.0.1", port, fetch: fetched });

    expect(server.port).toBe(port);
  });
});
