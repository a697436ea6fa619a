import type { PushResult } from "../api/models.ts";
import { connect } from "../client/connect.ts";
import { formatBytes } from "../terminal/bytes.ts";
import { printJson } from "../terminal/json.ts";
import { print } from "../terminal/output.ts";
import { JSON_FLAG, defineCommand } from "./command.ts";
import { withTransferProgress } from "./transfer.ts";

const UPLOADED_IS_KEPT =
  "What was uploaded whole is kept by the registry; run the command again to go on.";

export const command = defineCommand({
  args: {
    model: { type: "positional", description: "The model" },
    target: {
      type: "positional",
      required: false,
      description: "What it is called in the registry (its own name unless given)",
    },
    insecure: { type: "boolean", description: "Over plain http, or with any certificate" },
    quiet: { type: "boolean", alias: "q", description: "Show no progress" },
    json: JSON_FLAG,
  },
  async run({ args, config, paths, signal }) {
    const client = await connect("transfer", { config, paths, signal });
    const quiet = args.quiet === true || args.json === true;
    const request = {
      ...(args.target === undefined ? {} : { to: args.target }),
      ...(args.insecure === true ? { insecure: true } : {}),
    };
    const result = await withTransferProgress({ quiet, kept: UPLOADED_IS_KEPT }, (onProgress) =>
      client.push(args.model, request, { signal, onProgress }),
    );
    if (args.json === true) return printJson(result);
    if (!quiet) process.stderr.write(`${describePush(result)}\n`);
    await print(`${pushed(result)}\n`);
  },
});

/** `registry/repository:tag@digest`. */
export function pushed({ reference, digest }: PushResult): string {
  return reference.includes("@") ? reference : `${reference}@${digest}`;
}

/** What crossed the network, the manifest at least, and what did not have to. */
export function describePush({ uploaded_bytes: sent, reused_bytes: reused }: PushResult): string {
  const rest = reused === 0 ? "" : `; ${formatBytes(reused)} were there already`;
  return `Uploaded ${formatBytes(sent)}${rest}.`;
}
