import { connect } from "../client/connect.ts";
import { displayReference } from "../oci/reference.ts";
import { formatBytes } from "../terminal/bytes.ts";
import { printJson } from "../terminal/json.ts";
import { print } from "../terminal/output.ts";
import { JSON_FLAG, defineCommand } from "./command.ts";
import { shortId } from "./list.ts";

export const command = defineCommand({
  args: {
    json: JSON_FLAG,
    verbose: { type: "boolean", alias: "v", description: "Also each model and engine" },
  },
  async run({ args, config, paths, signal }) {
    const client = await connect("models", { config, paths, signal });
    const usage = await client.diskUsage({ signal });
    if (args.json === true) return printJson(usage);
    const { renderTable } = await import("../terminal/table.ts");
    const rows = [
      ["Models", formatBytes(usage.models_disk_usage), formatBytes(usage.reclaimable)],
      ["Engines", formatBytes(usage.default_backend_disk_usage), ""],
    ];
    await print(renderTable(["TYPE", "SIZE", "RECLAIMABLE"], rows));
    if (args.verbose !== true) return;
    const models = usage.models.map(({ id, tags, size_bytes: size, shared_bytes: shared }) => [
      tags.map(displayReference).join(", ") || "<none>",
      shortId(id),
      formatBytes(size),
      formatBytes(shared),
    ]);
    const engines = usage.engines.map((engine) => [
      engine.backend,
      engine.version,
      engine.variant,
      formatBytes(engine.size_bytes),
    ]);
    await print(`\n${renderTable(["MODEL NAME", "MODEL ID", "SIZE", "SHARED"], models)}`);
    await print(`\n${renderTable(["ENGINE", "VERSION", "VARIANT", "SIZE"], engines)}`);
  },
});
