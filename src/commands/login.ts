import { connect } from "../client/connect.ts";
import { AppError } from "../errors.ts";
import { printJson } from "../terminal/json.ts";
import { print } from "../terminal/output.ts";
import { type CommandContext, JSON_FLAG, defineCommand } from "./command.ts";

/** Tokens have some thousand characters. Bytes. */
const MAX_PASSWORD_BYTES = 64 * 1024;

/** Docker Hub. */
export const DEFAULT_HOST = "docker.io";

const ARGS = {
  host: {
    type: "positional",
    required: false,
    description: "The registry, such as `ghcr.io` (docker.io unless given)",
  },
  username: { type: "string", alias: "u", valueHint: "USER", description: "The account" },
  "password-stdin": { type: "boolean", description: "Read the password or token from stdin" },
  password: {
    type: "string",
    alias: "p",
    valueHint: "PASSWORD",
    description: "Refused: other users can see arguments; give `--password-stdin` instead",
  },
  insecure: { type: "boolean", description: "Over plain http, or with any certificate" },
  json: JSON_FLAG,
} as const;

type Context = CommandContext<typeof ARGS>;

/** Always in this process: credentials belong to this machine, and no runner is needed. */
export const command = defineCommand({
  args: ARGS,
  details:
    "The credential is tried before it is kept: by Docker's credential helper if one is set up, else in a file that only you can read.",
  async run(context) {
    const { args, config, paths, signal } = context;
    refusePassword(args);
    const registry = toRegistry(args.host);
    const username = args.username ?? (await askForUsername(context, registry));
    const password = await readPassword(context, { registry, username });
    const client = await connect("local", { config, paths, signal });
    const insecure = args.insecure === true ? { insecure: true } : {};
    const result = await client.login({ registry, username, password, ...insecure }, { signal });
    if (args.json === true) return printJson(result);
    await print(
      `Logged in to ${result.registry} as ${result.username}; kept in ${result.kept_in}.\n`,
    );
  },
});

/** Whoever copies an address from a browser means its host, as with `docker login`. */
export function toRegistry(typed: string = DEFAULT_HOST): string {
  return typed.trim().replace(/^https?:\/\/([^/]*)(?:\/.*)?$/i, "$1");
}

/** A file without the line break that ends it. It may have several lines: Google's key of an account is JSON. @throws usage */
export function toPassword(text: string): string {
  const password = text.replace(/[\r\n]+$/, "");
  if (password !== "") return password;
  throw new AppError("usage", "cannot use the password: stdin holds none", {
    hint: "Write `tug login HOST -u USER --password-stdin < FILE`.",
  });
}

// --- internal ---

function refusePassword({ password }: Context["args"]): void {
  if (password === undefined) return;
  throw new AppError("usage", "a password is not taken as an argument: other users could see it", {
    hint: "Give it with `--password-stdin`, such as `tug login HOST -u USER --password-stdin < FILE`.",
  });
}

async function askForUsername({ args, signal }: Context, registry: string): Promise<string> {
  if (args["password-stdin"] === true) {
    throw new AppError("usage", "say whose password it is", {
      hint: "Give the account with `-u USER`.",
    });
  }
  const { ask } = await import("../terminal/question.ts");
  return ask({ message: `User name at ${registry}`, flag: "-u USER", signal });
}

async function readPassword(
  { args, signal }: Context,
  { registry, username }: { registry: string; username: string },
): Promise<string> {
  if (args["password-stdin"] === true) return toPassword(await readAll(Bun.stdin.stream(), signal));
  const { askSecret } = await import("../terminal/question.ts");
  const message = `Password or token of ${username} at ${registry}`;
  return askSecret({ message, flag: "--password-stdin", signal });
}

/** To the end: whoever writes a password closes the pipe behind it. */
async function readAll(stream: ReadableStream<Uint8Array>, signal: AbortSignal): Promise<string> {
  const reader = stream.getReader();
  const stop = (): void => void reader.cancel(signal.reason);
  signal.addEventListener("abort", stop, { once: true });
  const parts: Uint8Array[] = [];
  let size = 0;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      signal.throwIfAborted();
      if (done) return Buffer.concat(parts).toString("utf8");
      parts.push(value);
      size += value.byteLength;
      if (size > MAX_PASSWORD_BYTES)
        throw new AppError("usage", "cannot use the password: stdin holds far more than one");
    }
  } finally {
    signal.removeEventListener("abort", stop);
  }
}
