import { connect } from "../client/connect.ts";
import { printJson } from "../terminal/json.ts";
import { print } from "../terminal/output.ts";
import { JSON_FLAG, defineCommand } from "./command.ts";

export const command = defineCommand({
  args: {
    force: { type: "boolean", alias: "f", description: "Do not ask" },
    json: JSON_FLAG,
  },
  async run({ args, config, paths, signal }) {
    const client = await connect("models", { config, paths, signal });
    const models = await client.listModels({ signal });
    if (args.force !== true) {
      const { confirm } = await import("../terminal/question.ts");
      const message = `Remove every model (${models.length}) from ${paths.models}?`;
      if (!(await confirm({ message, flag: "--force" }))) {
        process.stderr.write("Nothing was removed.\n");
        return 0;
      }
    }
    await client.unload({ all: true }, { signal });
    await client.purge({ signal });
    if (args.json === true) return printJson({ removed: models.map(({ id }) => id) });
    await print(`Removed every model (${models.length}).\n`);
  },
});
