import type { UnloadResult } from "../api/engines.ts";
import { connect } from "../client/connect.ts";
import { AppError } from "../errors.ts";
import { displayReference } from "../oci/reference.ts";
import { printJson } from "../terminal/json.ts";
import { print } from "../terminal/output.ts";
import { stripControls } from "../terminal/style.ts";
import { JSON_FLAG, defineCommand } from "./command.ts";

export const command = defineCommand({
  args: {
    models: { type: "positional", rest: true, required: false, description: "The models" },
    all: { type: "boolean", description: "Unload every model" },
    backend: { type: "string", valueHint: "NAME", description: "Only those of this engine" },
    wait: {
      type: "boolean",
      description: "Let those that answer finish, and return when they have",
    },
    force: { type: "boolean", alias: "f", description: "Break off what they answer" },
    json: JSON_FLAG,
  },
  details: "A model that is answering is left alone, unless `--wait` or `--force` is given.",
  /** @returns 1 if one that was named is still there */
  async run({ args, config, paths, signal }) {
    const { models, backend } = args;
    if (args.all === true ? models.length > 0 : models.length === 0) {
      throw new AppError("usage", "say which models to unload", {
        hint: "Give names, or `--all` alone.",
      });
    }
    if (args.wait === true && args.force === true) {
      throw new AppError("usage", "`--wait` and `--force` exclude each other", {
        hint: "Give one of them.",
      });
    }
    const client = await connect("models", { config, paths, signal });
    const which = args.all === true ? { all: true } : { models };
    const how = { wait: args.wait === true, force: args.force === true };
    const request = { ...which, ...how, ...(backend === undefined ? {} : { backend }) };
    const result = await client.unload(request, { signal });
    const isLeft = result.skipped.length > 0 && args.all !== true;
    if (args.json === true) {
      await printJson(result);
      return isLeft ? 1 : 0;
    }
    await print(renderUnloaded(result));
    for (const line of renderSkipped(result)) process.stderr.write(line);
    return isLeft ? 1 : 0;
  },
});

/** Nothing if only skipped ones are to be told of. */
export function renderUnloaded({ unloaded_runners: count, skipped }: UnloadResult): string {
  if (count === 0) return skipped.length === 0 ? "Nothing to unload.\n" : "";
  return `Unloaded ${count} model${count === 1 ? "" : "s"}.\n`;
}

/** A line each, for stderr. */
export function renderSkipped({ skipped }: UnloadResult): string[] {
  const lines = skipped.map(
    ({ model, reason }) => `skipped ${stripControls(`${displayReference(model)}: ${reason}`)}\n`,
  );
  return lines.length === 0
    ? []
    : [...lines, "hint: Wait for them with `--wait`, or break them off with `--force`.\n"];
}
