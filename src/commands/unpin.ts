import { connect } from "../client/connect.ts";
import { JSON_FLAG, defineCommand } from "./command.ts";
import { reportPins } from "./pin.ts";

export const command = defineCommand({
  args: {
    models: { type: "positional", rest: true, description: "The models" },
    json: JSON_FLAG,
  },
  details: "They stay loaded for as long as any other model that is idle.",
  async run({ args, config, paths, signal }) {
    const client = await connect("models", { config, paths, signal });
    const result = await client.pin({ models: args.models, pinned: false }, { signal });
    await reportPins(result, args.json === true);
  },
});
