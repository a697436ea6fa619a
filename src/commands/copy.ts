import type { CopyRequest } from "../api/models.ts";
import { connect } from "../client/connect.ts";
import { printJson } from "../terminal/json.ts";
import { print } from "../terminal/output.ts";
import { JSON_FLAG, defineCommand } from "./command.ts";
import { describePush, pushed } from "./push.ts";
import { withTransferProgress } from "./transfer.ts";

const COPIED_IS_KEPT =
  "What was copied whole is kept by the target; run the command again to go on.";

export const command = defineCommand({
  args: {
    source: { type: "positional", description: "A model in a registry" },
    target: { type: "positional", description: "What it becomes, in the same registry or another" },
    platform: {
      type: "string",
      valueHint: "OS/ARCH",
      description: "Only this one of an index (the whole index unless given)",
    },
    insecure: { type: "boolean", description: "Over plain http, or with any certificate" },
    quiet: { type: "boolean", alias: "q", description: "Show no progress" },
    json: JSON_FLAG,
  },
  details: "From registry to registry: nothing enters the store, and the digest stays the same.",
  async run({ args, config, paths, signal }) {
    const client = await connect("transfer", { config, paths, signal });
    const quiet = args.quiet === true || args.json === true;
    const request: CopyRequest = {
      source: args.source,
      target: args.target,
      ...(args.platform === undefined ? {} : { platform: args.platform }),
      ...(args.insecure === true ? { insecure: true } : {}),
    };
    const result = await withTransferProgress({ quiet, kept: COPIED_IS_KEPT }, (onProgress) =>
      client.copy(request, { signal, onProgress }),
    );
    if (args.json === true) return printJson(result);
    if (!quiet) process.stderr.write(`${describePush(result)}\n`);
    await print(`${pushed(result)}\n`);
  },
});
