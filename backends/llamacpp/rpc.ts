/**
 * llama.cpp over several machines. Its protocol has neither authentication nor encryption, and a server talks to one
 * client at a time: others wait until that one has gone.
 *
 * @see https://github.com/ggml-org/llama.cpp/blob/master/tools/rpc/README.md
 */
import { AppError } from "../../src/errors.ts";
import type {
  EngineCommand,
  ExitFacts,
  ExitReason,
  RpcServeOptions,
  RpcSupport,
} from "../../src/runtime/backend.ts";

/** Pages of addresses, and seconds with a debugger, of a program that ends because another machine has gone. */
export const NO_BACKTRACE: Readonly<Record<string, string>> = { GGML_NO_BACKTRACE: "1" };

const DEVICE_FLAGS: ReadonlySet<string> = new Set(["-dev", "--device"]);
const MIB = 1024 * 1024;
/** Characters of a server's own words that are shown. */
const QUOTE_LIMIT = 200;

export const rpc: RpcSupport = {
  executables: ["ggml-rpc-server", "rpc-server", "llama-rpc-server"],
  serve,
  listDevices: (server) => ({ args: ["--rpc", server, "--list-devices"], env: NO_BACKTRACE }),
  parseDevices,
  explainExit,
  avoids,
};

/** Before the devices, which may name theirs. @throws invalid_request for what would be read as two */
export function rpcArgs(remotes: readonly string[] | undefined): readonly string[] {
  if (remotes === undefined || remotes.length === 0) return [];
  const wrong = remotes.find((server) => !/^[\w.-]+:\d{1,5}$/.test(server));
  if (wrong === undefined) return ["--rpc", remotes.join(",")];
  throw new AppError("invalid_request", `cannot use the RPC server \`${wrong.slice(0, 200)}\``, {
    hint: "Write it as `HOST:PORT`.",
  });
}

// --- internal ---

function serve({ host, port, devices, cacheDirectory }: RpcServeOptions): EngineCommand {
  const args = ["--host", host, "--port", String(port)];
  if (devices.length > 0) args.push("--device", devices.join(","));
  if (cacheDirectory === undefined) return { args, env: NO_BACKTRACE };
  return { args: [...args, "--cache"], env: { ...NO_BACKTRACE, LLAMA_CACHE: cacheDirectory } };
}

/** Lines such as `  RPC0: 192.0.2.7:50052 (24105 MiB, 23000 MiB free)`. */
function parseDevices(stdout: string): number | undefined {
  const lines = stdout.matchAll(/^\s*RPC[^\n]*\((\d{1,9}) MiB, (\d{1,9}) MiB free\)\s*$/gm);
  const free = [...lines].map(([, , amount]) => Number(amount) * MIB);
  return free.length === 0 ? undefined : free.reduce((sum, bytes) => sum + bytes, 0);
}

function avoids(flags: readonly string[]): boolean {
  const at = flags.findLastIndex((flag) => DEVICE_FLAGS.has(flag));
  return at >= 0 && !/(?:^|,)RPC/i.test(flags[at + 1] ?? "");
}

function explainExit({ exitCode, signal, stderrTail }: ExitFacts): ExitReason {
  if (/Failed to create server socket/.test(stderrTail)) {
    return {
      reason: "it cannot listen there",
      hint: "Choose a port that is free, and an address of this machine.",
    };
  }
  const unknown = /unknown device: (.*)/.exec(stderrTail)?.[1];
  if (unknown !== undefined) {
    return {
      reason: `there is no device \`${unknown.slice(0, QUOTE_LIMIT)}\``,
      hint: "Leave out `--device` for all that there are.",
    };
  }
  if (/Failed to find RPC backend/.test(stderrTail)) {
    return {
      reason: "this build of llama.cpp computes for no other machine",
      hint: "Install another with `tug install-runner`.",
    };
  }
  if (signal !== null) return { reason: `it was ended by ${signal}` };
  const line = stderrTail.trim().split("\n").at(-1)?.trim() ?? "";
  const how = `it ended with exit code ${exitCode ?? "unknown"}`;
  return { reason: line === "" ? how : `${how}: ${line.slice(0, QUOTE_LIMIT)}` };
}
