import { connect } from "../client/connect.ts";
import { formatBytes } from "../terminal/bytes.ts";
import { printJson } from "../terminal/json.ts";
import { print } from "../terminal/output.ts";
import { JSON_FLAG, defineCommand } from "./command.ts";

export const command = defineCommand({
  args: {
    all: { type: "boolean", alias: "a", description: "Untagged models too" },
    "dry-run": { type: "boolean", description: "Only say what would go" },
    json: JSON_FLAG,
  },
  async run({ args, config, paths, signal }) {
    const client = await connect("models", { config, paths, signal });
    const dryRun = args["dry-run"] === true;
    const result = await client.prune({ signal, all: args.all === true, dryRun });
    if (args.json === true) return printJson(result);
    const counts = `${result.models.length} models, ${result.blobs} blobs, ${result.ingests} unfinished writes, ${result.bundles} bundles`;
    await print(
      `${dryRun ? "Would free" : "Freed"} ${formatBytes(result.freed_bytes)} (${counts}).\n`,
    );
  },
});
