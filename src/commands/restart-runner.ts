import { pingRunner } from "../client/connect.ts";
import { JSON_FLAG, defineCommand } from "./command.ts";
import { command as start } from "./start-runner.ts";

export const command = defineCommand({
  args: {
    force: { type: "boolean", alias: "f", description: "Cut off the answers it is giving" },
    json: JSON_FLAG,
  },
  async run(context) {
    const { args, config, paths, signal } = context;
    const found = await pingRunner({ config, paths, signal });
    if (found !== undefined) {
      const { replaceRunner } = await import("../client/launch.ts");
      await replaceRunner(found, { config, paths, signal, force: args.force === true });
    }
    return start.run(context);
  },
});
