import { connect } from "../client/connect.ts";
import { AppError } from "../errors.ts";
import { printJson } from "../terminal/json.ts";
import { print } from "../terminal/output.ts";
import { JSON_FLAG, defineCommand } from "./command.ts";

export const command = defineCommand({
  args: {
    models: { type: "positional", rest: true, required: false, description: "The models" },
    all: { type: "boolean", description: "Unload every model" },
    backend: { type: "string", valueHint: "NAME", description: "Only those of this engine" },
    json: JSON_FLAG,
  },
  async run({ args, config, paths, signal }) {
    if (args.all === true ? args.models.length > 0 : args.models.length === 0) {
      throw new AppError("usage", "say which models to unload", {
        hint: "Give names, or `--all` alone.",
      });
    }
    const client = await connect("models", { config, paths, signal });
    const backend = args.backend === undefined ? {} : { backend: args.backend };
    const result = await client.unload(
      { all: args.all === true, models: args.models, ...backend },
      { signal },
    );
    if (args.json === true) return printJson(result);
    const count = result.unloaded_runners;
    await print(
      count === 0 ? "Nothing to unload.\n" : `Unloaded ${count} model${count === 1 ? "" : "s"}.\n`,
    );
  },
});
