import { connect } from "../client/connect.ts";
import { AppError } from "../errors.ts";
import { parseReference } from "../oci/reference.ts";
import { printJson } from "../terminal/json.ts";
import { print } from "../terminal/output.ts";
import { JSON_FLAG, defineCommand } from "./command.ts";

export const command = defineCommand({
  args: {
    source: { type: "positional", description: "The model" },
    target: {
      type: "positional",
      description: "Its further name; what is left out becomes `ai/` and `:latest`",
    },
    json: JSON_FLAG,
  },
  async run({ args, config, paths, signal }) {
    const { registry, repository, tag, digest } = parseReference(args.target);
    if (digest !== undefined) {
      throw new AppError("usage", `cannot tag as \`${args.target}\`: a digest is not a tag`, {
        hint: "Give a name and a tag, such as `me/model:v1`.",
      });
    }
    const client = await connect("models", { config, paths, signal });
    const target = { repository: `${registry}/${repository}`, tag: tag ?? "latest" };
    const result = await client.tag(args.source, target, { signal });
    if (args.json === true) return printJson(result);
    await print(`${result.message}\n`);
  },
});
