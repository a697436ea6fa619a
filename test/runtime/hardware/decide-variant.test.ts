import { describe, expect, test } from "bun:test";
import { writeFile } from "node:fs/promises";
import { decideVariant } from "../../../src/runtime/hardware/index.ts";
import { type HardwareIo, systemIo } from "../../../src/runtime/hardware/io.ts";
import type { Env } from "../../../src/runtime/hardware/probe.ts";
import { tempDir } from "../../helpers/temp-dir.ts";
import { isWindows, testIf } from "../../helpers/test-if.ts";
import { machineOf, recorded } from "./machine-of.ts";

const LINUX = { platform: "linux", arch: "x64" } as const;
const MAC = { platform: "darwin", arch: "arm64" } as const;
const ENGINE = { engine: "llama.cpp", machine: LINUX, env: {} } as const;

/** This machine's programs without its hardware. */
function toolsAlone(env: Env): { env: Env; io: HardwareIo } {
  const nothing = { read: () => Promise.resolve(""), list: () => Promise.resolve([]) };
  return { env, io: { ...systemIo({ env }), ...nothing } };
}

/** A command of a shell that prints a fixture. */
async function print(name: string): Promise<string> {
  return `printf '%s' '${(await recorded(name)).replaceAll("'", `'\\''`)}'`;
}

describe("decideVariant", () => {
  test.each([
    [{ TUG_GPU: "rocm" }, "auto", LINUX, "rocm"],
    [{}, "none", LINUX, "none"],
    [{}, "auto", MAC, "metal"],
    [{}, "auto", { platform: "darwin", arch: "x64" }, "none"],
    [{ TUG_GPU: "cuda" }, "auto", MAC, "cuda"],
  ] as const)(
    "with %j and `%s` on %j it is %s, and no tool is asked",
    async (...[env, gpu, machine, expected]) => {
      const io = machineOf({
        tools: { "nvidia-smi": await recorded("nvidia-580.csv"), vulkaninfo: "" },
      });

      const choice = await decideVariant({ ...ENGINE, machine, env, gpu, io });

      expect(choice.gpu).toBe(expected);
      expect(io.asked).toEqual([]);
    },
  );

  test("each tool is asked once", async () => {
    const names = ["nvidia-smi", "rocminfo", "mthreads-gmi", "npu-smi", "sycl-ls", "vulkaninfo"];
    const io = machineOf({ tools: Object.fromEntries(names.map((name) => [name, ""])) });

    const choice = await decideVariant({ ...ENGINE, gpu: "auto", io });

    expect(choice).toMatchObject({ gpu: "none", reason: "none: no GPU was found" });
    expect(io.asked.map((command) => command.split(" ")[0] ?? "").toSorted()).toEqual(
      names.toSorted(),
    );
  });

  test("a wrong TUG_GPU is refused before anything is asked", async () => {
    const io = machineOf({ tools: { "nvidia-smi": "" } });
    const decided = decideVariant({ ...ENGINE, env: { TUG_GPU: "gtx" }, gpu: "auto", io });

    expect(decided).rejects.toMatchObject({ code: "usage" });
    await decided.catch(() => undefined);
    expect(io.asked).toEqual([]);
  });

  testIf(!isWindows, "tools are shell scripts")(
    "tools on PATH are asked, the best that serves is chosen, and failures mean no",
    async () => {
      await using directory = await tempDir();
      const write = (name: string, text: string): Promise<void> =>
        writeFile(`${directory.path}/${name}`, `#!/bin/sh\n${text}\n`, { mode: 0o755 });
      const env = { PATH: directory.path };
      const decide = (extra = {}) =>
        decideVariant({ ...ENGINE, gpu: "auto", ...toolsAlone({ ...env, ...extra }) });

      expect((await decide()).gpu).toBe("none");

      await write("vulkaninfo", await print("vulkan-intel.txt"));
      await write("nvidia-smi", `${await print("nvidia-no-driver.txt")}; exit 9`);
      expect((await decide()).gpu).toBe("vulkan");

      await write("nvidia-smi", await print("nvidia-580.csv"));
      expect((await decide()).gpu).toBe("cuda");
      expect((await decide({ CUDA_VISIBLE_DEVICES: "" })).gpu).toBe("vulkan");
    },
  );

  testIf(!isWindows, "tools are shell scripts")(
    "a caller that leaves ends it, with its reason",
    async () => {
      await using directory = await tempDir();
      await writeFile(`${directory.path}/nvidia-smi`, "#!/bin/sh\nexec /bin/sleep 300\n", {
        mode: 0o755,
      });
      const controller = new AbortController();
      const { signal } = controller;
      const decided = decideVariant({
        ...ENGINE,
        env: { PATH: directory.path },
        gpu: "auto",
        signal,
      });

      controller.abort(new Error("gone"));

      expect(decided).rejects.toThrow("gone");
      await decided.catch(() => undefined);
    },
  );
});
