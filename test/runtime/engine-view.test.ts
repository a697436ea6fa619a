import { describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { mkdir, realpath, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";

import type { Bundle, Installation } from "../../src/runtime/backend.ts";
import { deviceFiles, engineView } from "../../src/runtime/engine-view.ts";
import { fakeInstallation } from "../fakes/backend.ts";
import { tempDir } from "../helpers/temp-dir.ts";

function bundleOf(model: string, more: Partial<Bundle> = {}): Bundle {
  return { directory: join(model, ".."), format: "gguf", model, weightBytes: 1, ...more };
}

function installed(directory: string, more: Partial<Installation> = {}): Installation {
  return fakeInstallation({
    source: "apt",
    directory,
    command: [join(directory, "ld.so"), "--library-path", directory, join(directory, "server")],
    ...more,
  });
}

const settings = { runtimeFlags: [] };
const common = { settings, env: { A: "1" }, socket: "/run/w1/e.sock" };

describe("engineView", () => {
  test("view: the engine, the model with what its links point to, and the socket's directory, nothing else", async () => {
    await using at = await tempDir();
    const root = await realpath(at.path);
    const [blob, link, secret] = ["blob", "model.gguf", "secret"].map((name) => join(root, name));
    await writeFile(blob ?? "", "x");
    await writeFile(secret ?? "", "x");
    await symlink(blob ?? "", link ?? "");

    const view = await engineView({
      ...common,
      installation: installed("/opt/engine"),
      bundles: [bundleOf(link ?? ""), bundleOf("/draft.gguf", { mmproj: "/proj.gguf" })],
      settings: { ...settings, adapters: ["/lora.gguf"] },
    });

    expect(view.readOnly.toSorted()).toEqual(
      ["/opt/engine", blob ?? "", link ?? "", "/draft.gguf", "/proj.gguf", "/lora.gguf"].toSorted(),
    );
    expect(view.writable).toEqual(["/run/w1"]);
    expect(view.variables).toEqual(["A"]);
    expect(view.devices).toEqual([]);
  });

  test("view: where it keeps what it compiled is writable; a cluster is met by name, in shared memory", async () => {
    const installation = installed("/opt/engine");
    const bundles = [bundleOf("/m.gguf")];

    const view = await engineView({
      ...common,
      installation,
      bundles,
      cacheDirectory: "/opt/engine/compiled",
      joinsCluster: true,
    });
    const plain = await engineView({ ...common, installation, bundles });

    expect(view.writable.slice(0, 2)).toEqual(["/run/w1", "/opt/engine/compiled"]);
    expect(view.writable.includes("/dev/shm")).toBe(existsSync("/dev/shm"));
    expect(view.readOnly).toContain("/etc/hosts");
    expect([plain.writable, plain.readOnly.includes("/etc/hosts")]).toEqual([["/run/w1"], false]);
  });

  test("view: all shards of a bare file, and not the directory it is in", async () => {
    const view = await engineView({
      ...common,
      installation: installed("/opt/engine"),
      bundles: [bundleOf("/home/me/m-00001-of-00002.gguf")],
    });

    expect(view.readOnly).toContain("/home/me/m-00002-of-00002.gguf");
    expect(view.readOnly).not.toContain("/home/me");
  });

  test("view: other formats are directories", async () => {
    await using at = await tempDir();
    await mkdir(join(at.path, "bundle"));
    const directory = join(at.path, "bundle");

    const view = await engineView({
      ...common,
      installation: installed("/opt/engine"),
      bundles: [
        bundleOf(join(directory, "model.safetensors"), { format: "safetensors", directory }),
      ],
    });

    expect(view.readOnly).toContain(directory);
  });

  test("view: the libraries of a GPU's vendor, under the name of their version too", async () => {
    await using at = await tempDir();
    const root = await realpath(at.path);
    const [rocm, version] = [join(root, "rocm"), join(root, "rocm-6.2.0")];
    await mkdir(version);
    await symlink("rocm-6.2.0", rocm);
    const look = async (variant: string): Promise<readonly string[]> => {
      const installation = installed("/opt/engine", { variant });
      const bundles = [bundleOf("/m.gguf")];
      return (await engineView({ ...common, installation, bundles, vendors: [rocm] })).readOnly;
    };

    expect(await look("rocm")).toEqual(expect.arrayContaining([rocm, version]));
    expect(await look("cpu")).not.toContain(rocm);
  });

  test("view: an engine of the user's own does not show the directory it lies in", async () => {
    const home = "/home/me";
    const installation = installed(home, { source: "path", command: [`${home}/llama-server`] });

    const view = await engineView({
      ...common,
      home,
      installation,
      bundles: [bundleOf("/m.gguf")],
    });

    expect(view.readOnly).toContain(`${home}/llama-server`);
    expect(view.readOnly).not.toContain(home);
  });
});

const list = (): Promise<readonly string[]> =>
  Promise.resolve(["nvidia0", "nvidiactl", "nvidia-uvm", "dri", "kfd", "sda", "mem", "nvidia-x"]);

describe("deviceFiles", () => {
  test("devices: those of GPUs for builds that use one, none for the others", async () => {
    expect(await deviceFiles("cpu", list)).toEqual([]);
    expect(await deviceFiles("metal", list)).toEqual([]);
    expect(await deviceFiles("cuda", list)).toEqual([
      "/dev/nvidia0",
      "/dev/nvidiactl",
      "/dev/nvidia-uvm",
      "/dev/dri",
      "/dev/kfd",
    ]);
  });

  test("devices: a machine without a list of devices has none", async () => {
    expect(await deviceFiles("vulkan", () => Promise.reject(new Error("no /dev")))).toEqual([]);
  });
});
