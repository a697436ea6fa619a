import { describe, expect, test } from "bun:test";
import { llamacpp } from "../../../backends/llamacpp/index.ts";
import { rpc, rpcArgs } from "../../../backends/llamacpp/rpc.ts";
import type { ArgsInput } from "../../../src/runtime/backend.ts";

const MIB = 1024 * 1024;

/** As llama-server and ggml-rpc-server 0.7.0 (build 11669) wrote them. */
const LOGS = {
  away: `0.03.818.563 I slot launch_slot_: id  0 | task 0 | processing task, is_child = 0
./src/ggml-rpc/ggml-rpc.cpp:682: Remote RPC server crashed or returned malformed response`,
  unreached: `./src/ggml-rpc/ggml-rpc.cpp:650: Failed to connect to 192.0.2.7:50052`,
  unsupported: `error while handling argument "--rpc": RPC not supported in this build`,
  devices: `Available devices:
  CUDA0: NVIDIA GeForce RTX 4090 (24564 MiB, 24000 MiB free)
  RPC0: 192.0.2.7:50052 (24105 MiB, 23000 MiB free)
  RPC1: 192.0.2.7:50052 (8000 MiB, 1000 MiB free)
`,
  none: `Available devices:
  (none)
`,
  taken: `  transport      : TCP
Failed to create server socket`,
  device: `error: unknown device: CUDA7
available devices:
No devices found`,
} as const;

function argsWith(remotes: readonly string[] | undefined): ReturnType<typeof llamacpp.args> {
  const input: ArgsInput = {
    bundle: { directory: "/b", format: "gguf", model: "/b/m.gguf", weightBytes: 1 },
    mode: "completion",
    alias: "m",
    settings: { runtimeFlags: ["--device", "RPC0"], remotes },
    socket: "/run/w.sock",
    cores: 4,
    platform: "linux",
  };
  return llamacpp.args(input);
}

function ending(stderrTail: string, remotes: readonly string[]): string {
  return llamacpp.explainExit({ exitCode: null, signal: "SIGABRT", stderrTail, remotes }).reason;
}

describe("llama.cpp's arguments", () => {
  test("servers stand before the flags that may name their devices", () => {
    const { args, env } = argsWith(["192.0.2.7:50052", "nas.lan:1"]);

    const at = args.indexOf("--rpc");
    expect(args[at + 1]).toBe("192.0.2.7:50052,nas.lan:1");
    expect(at).toBeLessThan(args.indexOf("--device"));
    // A debugger that looks for the cause would hold up the end by seconds.
    expect(env["GGML_NO_BACKTRACE"]).toBe("1");
  });

  test("without servers nothing is said of them", () => {
    expect(argsWith(undefined).args).not.toContain("--rpc");
    expect(argsWith(undefined).env).not.toHaveProperty("GGML_NO_BACKTRACE");
    expect(rpcArgs([])).toEqual([]);
  });

  test.each(["a:1,b:2", "a", "a:b", " a:1", "a:1 --model x", "[::1]:5", ""])(
    "%j is not passed on",
    (server) => {
      expect(() => rpcArgs([server])).toThrow(/cannot use the RPC server/);
    },
  );

  test.each([
    [["--device", "CUDA0"], true],
    [["-dev", "none"], true],
    [["--device", "CUDA0,RPC0"], false],
    [["--device", "CUDA0", "--device", "rpc1"], false],
    [["--device"], true],
    [[], false],
    [["--top-k", "RPC"], false],
  ])("flags %j avoid servers: %p", (flags, expected) => {
    expect(rpc.avoids(flags)).toBe(expected);
  });
});

describe("what a server offers", () => {
  test("the free memory of its devices, and of no others", () => {
    expect(rpc.parseDevices(LOGS.devices)).toBe(24_000 * MIB);
    expect(rpc.parseDevices(LOGS.none)).toBeUndefined();
    expect(rpc.parseDevices("")).toBeUndefined();
    expect(rpc.parseDevices(`  RPC0: x (${"9".repeat(400)} MiB, 1 MiB free)`)).toBeUndefined();
  });

  test("it is asked by the engine", () => {
    expect(rpc.listDevices("a:1").args).toEqual(["--rpc", "a:1", "--list-devices"]);
  });
});

describe("the server", () => {
  test("its arguments are host, port, devices and where it keeps tensors", () => {
    const place = { host: "127.0.0.1", port: 5, devices: ["CUDA0", "CUDA1"] };

    expect(rpc.serve({ ...place, devices: [] }).args).toEqual([
      "--host",
      "127.0.0.1",
      "--port",
      "5",
    ]);
    const { args, env } = rpc.serve({ ...place, cacheDirectory: "/c" });
    expect(args.slice(4)).toEqual(["--device", "CUDA0,CUDA1", "--cache"]);
    expect(env["LLAMA_CACHE"]).toBe("/c");
  });

  test.each([
    [LOGS.taken, 0, "it cannot listen there"],
    [LOGS.device, 1, "there is no device `CUDA7`"],
    ["Failed to find RPC backend", 1, "this build of llama.cpp computes for no other machine"],
    ["something\nodd", 3, "it ended with exit code 3: odd"],
    ["", 0, "it ended with exit code 0"],
  ])("its end after %j", (stderrTail, exitCode, expected) => {
    expect(rpc.explainExit({ exitCode, signal: null, stderrTail }).reason).toBe(expected);
  });

  test("its end by a signal", () => {
    const facts = { exitCode: null, signal: "SIGKILL", stderrTail: "Accepted client connection" };

    expect(rpc.explainExit(facts).reason).toBe("it was ended by SIGKILL");
  });
});

describe("the end of an engine whose server is gone", () => {
  test("names it", () => {
    expect(ending(LOGS.away, ["a:1"])).toBe(
      "its RPC server a:1 went away in the middle of its work",
    );
    expect(ending(LOGS.away, ["a:1", "b:2"])).toBe(
      "one of its RPC servers (a:1, b:2) went away in the middle of its work",
    );
    expect(ending(LOGS.unreached, ["a:1"])).toBe("the RPC server 192.0.2.7:50052 does not answer");
    expect(ending(LOGS.unsupported, ["a:1"])).toContain("cannot compute on other machines");
  });
});
