import { isIPv4 } from "node:net";
import { networkInterfaces } from "node:os";
import { parsePort } from "../config.ts";
import { AppError, toAppError } from "../errors.ts";
import { nearest } from "../nearest.ts";
import { print } from "../terminal/output.ts";
import { createProgress } from "../terminal/progress.ts";
import { stripControls } from "../terminal/style.ts";
import { type CommandContext, defineCommand } from "./command.ts";

/** llama.cpp's own. */
const DEFAULT_PORT = "50052";
/** Of the words for devices. */
const MAX_DEVICES = 64;
/** Of a typed word, what is shown. Characters. */
const MAX_SHOWN = 80;

/** Said of every directory that is looked into and of every connection, of which a load makes dozens, or better here. */
const NOISE =
  /^(?:ggml_backend_load_best|load_backend):|^!!!|^WARNING: Host|Never expose|experimental feature|client connection|^recv returned|^Expected HELLO/i;

const ARGS = {
  action: { type: "positional", description: "serve" },
  host: {
    type: "string",
    valueHint: "ADDRESS",
    description: "IPv4 address to listen on (127.0.0.1 unless given)",
  },
  "open-network": {
    type: "boolean",
    description: "Allow an address that other machines reach: each of them can then run code here",
  },
  port: {
    type: "string",
    valueHint: "N",
    description: `TCP port (${DEFAULT_PORT} unless given; 0 picks a free one)`,
  },
  device: {
    type: "string",
    valueHint: "NAME",
    description: "Offer this device, such as CUDA0; several with commas (all GPUs unless given)",
    multiple: true,
  },
  cache: { type: "boolean", description: "Keep large tensors on disk, so that they are sent once" },
} as const;

export const command = defineCommand({
  args: ARGS,
  details: `Lends this machine's GPUs and memory to llama.cpp on another one, whose \`rpc_servers\` in config.toml (or TUG_RPC_SERVERS)
names it. One model at a time uses it. Runs until Ctrl-C or SIGTERM. The protocol has neither keys nor encryption, and
is not made for hostile clients: leave it on 127.0.0.1 and reach it through a tunnel, such as
\`ssh -L ${DEFAULT_PORT}:127.0.0.1:${DEFAULT_PORT} THIS-MACHINE\`. Both machines need the same version of llama.cpp.`,
  async run(context) {
    checkAction(context.args.action);
    const host = toHost(context.args);
    const port = parsePort(context.args.port ?? DEFAULT_PORT);
    const devices = toDevices(context.args.device);
    await serve(context, { host, port, devices });
  },
});

/** @throws usage (no address, or one that others reach without it being said) */
export function toHost(args: {
  readonly host: string | undefined;
  readonly "open-network": boolean | undefined;
}): string {
  const host = args.host === "localhost" ? "127.0.0.1" : (args.host ?? "127.0.0.1").trim();
  if (!isIPv4(host)) {
    throw new AppError("usage", `\`${host.slice(0, MAX_SHOWN)}\` is not an IPv4 address`, {
      hint: "Write `--host 127.0.0.1`, or an address of this machine.",
    });
  }
  if (isLoopback(host) || args["open-network"] === true) return host;
  const reason = "whoever reaches that address could run code on this machine";
  throw new AppError("usage", `cannot listen on \`${host}\`: ${reason}`, {
    hint: "Leave out `--host` and use a tunnel (`ssh -L`), or add `--open-network` in a network that you trust wholly.",
  });
}

/** @throws usage */
export function toDevices(given: readonly string[]): readonly string[] {
  const devices = given.flatMap((text) => text.split(",")).map((word) => word.trim());
  const wrong = devices.find((name) => !/^[\w.-]{1,64}$/.test(name));
  if (wrong !== undefined || devices.length > MAX_DEVICES) {
    throw new AppError("usage", `\`${(wrong ?? "").slice(0, MAX_SHOWN)}\` is not a device`, {
      hint: "Write `--device CUDA0,CUDA1`, or leave it out for all GPUs.",
    });
  }
  return devices;
}

/** What the other machine has to be told, as its config.toml takes it. @param addresses of this machine */
export function toSetting(host: string, port: number, addresses: readonly string[]): string {
  const address = host === "0.0.0.0" ? (addresses[0] ?? "ADDRESS") : host;
  return `rpc_servers = ["${address}:${port}"]\n`;
}

// --- internal ---

type Context = CommandContext<typeof ARGS>;

interface Place {
  readonly host: string;
  readonly port: number;
  readonly devices: readonly string[];
}

function checkAction(word: string): void {
  if (word === "serve") return;
  const guess = nearest(word, ["serve"]);
  throw new AppError("usage", `\`${word.slice(0, MAX_SHOWN)}\` is nothing to do with RPC`, {
    hint: guess === undefined ? "Write `tug rpc serve`." : `Did you mean \`tug rpc ${guess}\`?`,
  });
}

async function serve({ args, config, paths, signal }: Context, place: Place): Promise<void> {
  const { startRpcServer } = await import("../daemon.ts");
  using progress = createProgress();
  const warnings = { type: "warning" } as const;
  const server = startRpcServer({
    ...place,
    config,
    paths,
    signal,
    keepsTensors: args.cache === true,
    onProgress: progress.listener,
    onWarning: (message) => progress.listener({ ...warnings, message }),
    onLine: say,
    onReady: (port) => {
      progress.finish();
      void announce({ ...place, port });
    },
  });
  try {
    await server;
  } catch (thrown) {
    // Ctrl-C is how it ends.
    if (toAppError(thrown).code !== "cancelled" || !signal.aborted) throw thrown;
  }
}

function say(line: string): void {
  const text = stripControls(line).trim();
  if (text !== "" && !NOISE.test(text)) process.stderr.write(`${text}\n`);
}

async function announce({ host, port }: Place): Promise<void> {
  if (!isLoopback(host)) {
    const risk = "every machine that reaches this port can run code here; nothing asks for a key";
    process.stderr.write(`warning: ${risk}\n`);
  }
  const where = "Serving. Write this into config.toml on the other machine";
  const tunnel = `ssh -L ${port}:127.0.0.1:${port} THIS-MACHINE`;
  const way = isLoopback(host) ? `, and run \`${tunnel}\` there` : "";
  process.stderr.write(`${where}${way}:\n`);
  await print(toSetting(host, port, ownAddresses()));
}

function isLoopback(host: string): boolean {
  return host.startsWith("127.");
}

function ownAddresses(): readonly string[] {
  return Object.values(networkInterfaces())
    .flatMap((all) => all ?? [])
    .filter(({ family, internal }) => family === "IPv4" && !internal)
    .map(({ address }) => address);
}
