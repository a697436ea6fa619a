import { connect } from "../client/connect.ts";
import { printJson } from "../terminal/json.ts";
import { JSON_FLAG, REMOTE_FLAG, defineCommand } from "./command.ts";

export const command = defineCommand({
  args: {
    model: { type: "positional", description: "A name, an id, or the first 12 digits of one" },
    remote: REMOTE_FLAG,
    json: { ...JSON_FLAG, description: "Accepted for symmetry: the answer is always JSON" },
  },
  async run({ args, config, paths, signal }) {
    const remote = args.remote === true;
    const client = await connect(remote ? "transfer" : "models", { config, paths, signal });
    await printJson(await client.inspect(args.model, { signal, remote }));
  },
});
