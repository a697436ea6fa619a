import { describe, expect, test } from "bun:test";
import { crc32 } from "node:zlib";
import { diffusersArgs } from "../../../backends/diffusers/args.ts";
import { diffusers } from "../../../backends/diffusers/index.ts";
import { recipe } from "../../../backends/diffusers/install.ts";
import { tinyDduf, tinyPipeline } from "../../../backends/diffusers/tiny-pipeline.ts";
import type { ArgsInput, WorkerSettings } from "../../../src/runtime/backend.ts";

function input(
  settings: Partial<WorkerSettings> = {},
  bundle: Partial<ArgsInput["bundle"]> = {},
): ArgsInput {
  return {
    bundle: { directory: "/b", format: "dduf", model: "/b/m.dduf", weightBytes: 1, ...bundle },
    mode: "image-generation",
    settings: { runtimeFlags: [], ...settings },
    alias: "-me/model",
    socket: "/run/w/worker.sock",
    cores: 2,
    platform: "linux",
    variant: "cuda",
  };
}

describe("diffusersArgs", () => {
  test("args: a DDUF is given as its file", () => {
    const { args, env } = diffusersArgs(input());

    expect(args.join(" ")).toBe(
      "--socket /run/w/worker.sock --model /b/m.dduf --name=-me/model --variant cuda --threads 2",
    );
    expect(env).toMatchObject({ HF_HUB_OFFLINE: "1", XDG_CACHE_HOME: "/run/w/cache" });
  });

  test("args: any other pipeline is given as its directory", () => {
    const bundle = { format: "safetensors", model: "/b/unet/diffusion_pytorch_model.safetensors" };

    expect(diffusersArgs(input({}, bundle)).args.slice(2, 4)).toEqual(["--model", "/b"]);
  });

  test.each([
    ["lora", { adapters: ["/a.safetensors"] }],
    ["runtime flags", { runtimeFlags: ["--fast"] }],
    ["a draft model", { draft: { model: "/d" } }],
  ])("args: %s is refused", (what, settings) => {
    expect(() => diffusersArgs(input(settings))).toThrow(`cannot start diffusers with ${what}`);
  });
});

describe("recipe", () => {
  const { pypi } = recipe;

  test("recipe: everything is locked with hashes, for each system that has wheels", () => {
    const lock = pypi?.requirements({ platform: "linux", arch: "x64" }, "none") ?? "";

    expect(pypi?.version).toMatch(/^\d+\.\d+\.\d+$/);
    expect(lock).toContain(`diffusers==${pypi?.version}`);
    for (const entry of lock.split(/\n(?=\w)/).slice(1)) expect(entry).toContain("--hash=sha256:");
    expect(pypi?.requirements({ platform: "linux", arch: "arm64" }, "cuda")).toBe(lock);
    expect(pypi?.requirements({ platform: "darwin", arch: "arm64" }, "metal")).toBe(lock);
    expect(pypi?.requirements({ platform: "linux", arch: "x64" }, "rocm")).toBeUndefined();
    expect(pypi?.requirements({ platform: "win32", arch: "x64" }, "none")).toBeUndefined();
  });

  test("recipe: the launcher is one program, which never runs a model's code", () => {
    const launcher = pypi?.launcher ?? "";

    expect(launcher.split("asyncio.run(main())")).toHaveLength(2);
    expect(launcher).not.toContain("trust_remote_code=True");
    expect(launcher).not.toContain("torch.load(");
    expect(launcher).not.toContain("pickle.");
  });
});

describe("the pipeline that an installation is tried with", () => {
  test("tiny: it is the same each time, small, and is what its smoke test asks for", () => {
    expect(tinyDduf()).toEqual(tinyDduf());
    expect(tinyDduf().byteLength).toBeLessThan(200_000);
    expect(Object.keys(diffusers.smokeFiles?.() ?? {})).toEqual(["tiny.dduf"]);
    expect(diffusers.paths).toContain(diffusers.smokeRequest?.path ?? "");
  });

  test("tiny: a DDUF is an archive of its files, none of them compressed", () => {
    const files = tinyPipeline();
    const found = readZip(Buffer.from(tinyDduf()));

    expect([...found.keys()]).toEqual(Object.keys(files));
    for (const [path, { method, crc, data }] of found) {
      expect(method).toBe(0);
      expect(crc).toBe(crc32(data));
      expect(data).toEqual(Buffer.from(files[path] ?? ""));
    }
  });
});

/** By the directory at its end, as readers do. */
function readZip(bytes: Buffer): Map<string, { method: number; crc: number; data: Buffer }> {
  const end = bytes.byteLength - 22;
  expect(bytes.readUInt32LE(end)).toBe(0x06054b50);
  const found = new Map<string, { method: number; crc: number; data: Buffer }>();
  let at = bytes.readUInt32LE(end + 16);
  for (let left = bytes.readUInt16LE(end + 10); left > 0; left -= 1) {
    expect(bytes.readUInt32LE(at)).toBe(0x02014b50);
    const length = bytes.readUInt16LE(at + 28);
    const name = bytes.subarray(at + 46, at + 46 + length).toString();
    const local = bytes.readUInt32LE(at + 42);
    const start = local + 30 + bytes.readUInt16LE(local + 26) + bytes.readUInt16LE(local + 28);
    const data = bytes.subarray(start, start + bytes.readUInt32LE(at + 20));
    found.set(name, {
      method: bytes.readUInt16LE(at + 10),
      crc: bytes.readUInt32LE(at + 16),
      data: Buffer.from(data),
    });
    at += 46 + length;
  }
  return found;
}
