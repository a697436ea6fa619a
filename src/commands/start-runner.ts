import { connect } from "../client/connect.ts";
import { printJson } from "../terminal/json.ts";
import { print } from "../terminal/output.ts";
import { JSON_FLAG, defineCommand } from "./command.ts";

export const command = defineCommand({
  args: { json: JSON_FLAG },
  async run({ args, config, paths, signal }) {
    const client = await connect("inference", { config, paths, signal });
    const info = await client.runner({ signal });
    if (args.json === true) return printJson(info);
    const endpoint = info.endpoint ?? `no TCP endpoint: ${info.endpoint_problem ?? "unknown"}`;
    await print(`The runner is running (pid ${info.pid}, ${endpoint}).\n`);
  },
});
