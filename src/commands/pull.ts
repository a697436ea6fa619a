import type { PullRequest, PullResult } from "../api/models.ts";
import type { ProgressEvent } from "../api/progress.ts";
import type { Client } from "../client/client.ts";
import { connect } from "../client/connect.ts";
import { parseConnections, parseRate } from "../config.ts";
import { AppError, toAppError, toErrorObject } from "../errors.ts";
import { openOutput, print } from "../terminal/output.ts";
import {
  type ArgumentValues,
  type Command,
  type CommandContext,
  JSON_FLAG,
  defineCommand,
} from "./command.ts";
import { FETCHED_IS_KEPT, makeWay, withTransferProgress } from "./transfer.ts";

const ARGS = {
  model: {
    type: "positional",
    description:
      "A name, `hf.co/ORG/REPO[:QUANTIZATION]`, `ollama.com/NAME` or the URL of a .gguf file",
  },
  platform: {
    type: "string",
    valueHint: "OS/ARCH",
    description: "Which model of an index (this machine's unless given)",
  },
  connections: {
    type: "string",
    valueHint: "N",
    description: "Connections at once, at most 64 (8 unless given)",
  },
  "limit-rate": {
    type: "string",
    valueHint: "RATE",
    description: "Bytes a second it may take, such as `10MB`",
  },
  insecure: {
    type: "boolean",
    description: "Over plain http, or with any certificate",
  },
  detach: {
    type: "boolean",
    alias: "d",
    description: "Let the runner pull it; print the pull's id",
  },
  quiet: { type: "boolean", alias: "q", description: "Show no progress; print the reference only" },
  json: { ...JSON_FLAG, description: "Print events as JSON lines; the last one is the outcome" },
} as const;

type Context = CommandContext<typeof ARGS>;

/**
 * In this process, whatever the runner does: a pull must not slow its answers down, and needs no runner. With `--detach`
 * the runner has it done by a process of its own.
 */
export const command = defineCommand({
  args: ARGS,
  details: "An interrupted pull goes on where it was when the command is run again.",
  async run(context) {
    const { args, config, paths, signal } = context;
    if (args.detach === true) return detach(context, toPullRequest(args));
    makeWay();
    if (args.json === true) {
      return printEvents(signal, async () => {
        const request = toPullRequest(args);
        return { client: await connect("transfer", { config, paths, signal }), request };
      });
    }
    const request = toPullRequest(args);
    const quiet = args.quiet === true;
    const client = await connect("transfer", { config, paths, signal });
    const result = await withTransferProgress({ quiet, kept: FETCHED_IS_KEPT }, (onProgress) =>
      client.pull(request, { signal, onProgress }),
    );
    if (result.up_to_date && !quiet) process.stderr.write("Already up to date.\n");
    await print(quiet ? `${result.reference}\n` : `${pinned(result)}\n`);
    return 0;
  },
});

/**
 * A pull for the runner: the request comes as a line on stdin, the events go to stdout. Arguments would show a token to
 * other users. It ends when stdin does: then the runner is gone, and nobody waits for the model.
 */
export const workerCommand: Command = {
  args: {},
  run: async ({ config, paths, signal }: Parameters<Command["run"]>[0]) => {
    const orphaned = new AbortController();
    const wanted = AbortSignal.any([signal, orphaned.signal]);
    return printEvents(wanted, async () => {
      const { readRequestLine } = await import("./request-line.ts");
      const text = await readRequestLine({ signal, onEnd: () => orphaned.abort() });
      const client = await connect("local", { config, paths, signal: wanted });
      return { client, request: JSON.parse(text) as PullRequest };
    });
  },
};

/** @throws usage, naming the flag and what it takes */
export function toPullRequest(args: ArgumentValues<typeof ARGS>): PullRequest {
  const { platform, connections, "limit-rate": rate } = args;
  if (platform !== undefined && !/^[a-z0-9]+(\/[a-z0-9_.-]+){1,2}$/i.test(platform)) {
    throw new AppError("usage", `\`${platform}\` is not a platform`, {
      hint: "Write `--platform OS/ARCH`, such as `linux/arm64`.",
    });
  }
  return {
    from: args.model,
    ...(platform === undefined ? {} : { platform }),
    ...(connections === undefined ? {} : { connections: parseConnections(connections) }),
    ...(rate === undefined ? {} : { limit_rate: parseRate(rate) }),
    ...(args.insecure === true ? { insecure: true } : {}),
  };
}

/** The reference with the digest, once. */
export function pinned({ reference, id }: Pick<PullResult, "reference" | "id">): string {
  return reference.includes("@") ? reference : `${reference}@${id}`;
}

// --- internal ---

async function detach(
  { args, config, paths, signal }: Context,
  request: PullRequest,
): Promise<number> {
  const client = await connect("inference", { config, paths, signal });
  const job = await client.startPull({ ...request, ...tokenFor(request, client) }, { signal });
  await print(args.json === true ? `${JSON.stringify(job)}\n` : `${job.id}\n`);
  if (args.json !== true && args.quiet !== true)
    process.stderr.write("The runner pulls it; `tug pulls` shows how far it is.\n");
  return 0;
}

/** The runner has the environment of whoever started it. A token goes to this machine's runner only. */
function tokenFor({ from }: PullRequest, { transport }: Client): Partial<PullRequest> {
  const token = process.env["HF_TOKEN"];
  const isWanted = /^(?:https:\/\/)?(?:hf\.co|(?:www\.)?huggingface\.co)\//i.test(from.trim());
  if (!token || !isWanted || transport.kind === "remote") return {};
  return { "bearer-token": token };
}

/**
 * Ends when nobody reads any more: whoever wanted to know is gone.
 *
 * @returns the exit code: the last event has said already what was wrong
 */
async function printEvents(
  interrupted: AbortSignal,
  prepare: () => Promise<{ client: Client; request: PullRequest }>,
): Promise<number> {
  const output = openOutput();
  const signal = AbortSignal.any([interrupted, output.closed]);
  const write = (event: ProgressEvent<PullResult>): Promise<boolean> =>
    output.write(`${JSON.stringify(event)}\n`);
  try {
    const { client, request } = await prepare();
    // In order, because one output takes them; the last one is waited for.
    const result = await client.pull(request, { signal, onProgress: (event) => void write(event) });
    await write({ type: "success", result });
    return 0;
  } catch (thrown) {
    const error = toAppError(thrown);
    await write({ type: "error", error: toErrorObject(error) });
    return error.exitCode;
  }
}
