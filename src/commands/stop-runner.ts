import { pingRunner } from "../client/connect.ts";
import { printJson } from "../terminal/json.ts";
import { print } from "../terminal/output.ts";
import { JSON_FLAG, defineCommand } from "./command.ts";

export const command = defineCommand({
  args: {
    force: { type: "boolean", alias: "f", description: "Cut off the answers it is giving" },
    json: JSON_FLAG,
  },
  /** Stopping what does not run is no error. */
  async run({ args, config, paths, signal }) {
    const found = await pingRunner({ config, paths, signal });
    const isRunning = found !== undefined;
    if (isRunning) {
      const { replaceRunner } = await import("../client/launch.ts");
      await replaceRunner(found, { config, paths, signal, force: args.force === true });
    }
    if (args.json === true) return printJson({ stopped: isRunning });
    await print(isRunning ? "The runner has stopped.\n" : "The runner was not running.\n");
  },
});
