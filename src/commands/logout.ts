import type { LogoutResult } from "../api/models.ts";
import { connect } from "../client/connect.ts";
import { printJson } from "../terminal/json.ts";
import { print } from "../terminal/output.ts";
import { JSON_FLAG, defineCommand } from "./command.ts";
import { DEFAULT_HOST, toRegistry } from "./login.ts";

export const command = defineCommand({
  args: {
    host: {
      type: "positional",
      required: false,
      description: "The registry (docker.io unless given)",
    },
    json: JSON_FLAG,
  },
  async run({ args, config, paths, signal }) {
    const client = await connect("local", { config, paths, signal });
    const result = await client.logout(toRegistry(args.host), { signal });
    if (args.json === true) return printJson(result);
    await print(`${describeLogout(result)}\n`);
  },
});

export function describeLogout({ registry, removed_from, remains_in }: LogoutResult): string {
  const removed = `removed from ${removed_from}`;
  if (remains_in !== null) {
    const first = removed_from === null ? "" : `Logged out of ${registry}; ${removed}.\n`;
    const isVariable = /^[A-Z_]+$/.test(remains_in);
    const host = registry === DEFAULT_HOST ? "" : ` ${registry}`;
    const remedy = isVariable ? "unset it" : `\`docker logout${host}\` removes it`;
    return `${first}There is a credential for ${registry} in ${remains_in} still, which is used from now on: ${remedy}.`;
  }
  return removed_from === null
    ? `You were not logged in to ${registry}.`
    : `Logged out of ${registry}; ${removed}.`;
}
