import { connect } from "../client/connect.ts";
import { printJson } from "../terminal/json.ts";
import { print } from "../terminal/output.ts";
import { JSON_FLAG, defineCommand } from "./command.ts";

export const command = defineCommand({
  args: {
    backend: {
      type: "string",
      valueHint: "NAME",
      description: "The engine (llama.cpp unless given)",
    },
    version: {
      type: "string",
      valueHint: "V",
      description: "Only this version, with or without its variant",
    },
    json: JSON_FLAG,
  },
  /** Through a runner if there is one: it must let go of the engine first. */
  async run({ args, config, paths, signal }) {
    const client = await connect("models", { config, paths, signal });
    const version = args.version === undefined ? {} : { version: args.version };
    const removed = await client.uninstall(
      { backend: args.backend ?? "llama.cpp", ...version },
      { signal },
    );
    if (args.json === true) return printJson(removed);
    if (removed.length === 0) await print("Nothing was installed.\n");
    for (const engine of removed)
      await print(`Removed ${engine.backend} ${engine.version} (${engine.variant}).\n`);
  },
});
