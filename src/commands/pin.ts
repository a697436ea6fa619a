import type { PinResult } from "../api/engines.ts";
import { connect } from "../client/connect.ts";
import { displayReference } from "../oci/reference.ts";
import { printJson } from "../terminal/json.ts";
import { print } from "../terminal/output.ts";
import { stripControls } from "../terminal/style.ts";
import { JSON_FLAG, defineCommand } from "./command.ts";
import { loadModel } from "./load-model.ts";

export const command = defineCommand({
  args: {
    models: { type: "positional", rest: true, description: "The models" },
    load: {
      type: "boolean",
      negatable: true,
      description: "Load them now, too; with `--no-load` they stay once they are loaded",
    },
    json: JSON_FLAG,
  },
  details: "A pinned model is never unloaded to make room or for being idle, only by `tug unload`.",
  async run({ args, config, paths, signal }) {
    const options = { config, paths, signal };
    const isLoading = args.load !== false;
    const client = await connect(isLoading ? "inference" : "models", options);
    const result = await client.pin({ models: args.models, pinned: true }, { signal });
    for (const model of isLoading ? args.models : []) {
      await loadModel(client, { model }, { signal, quiet: args.json === true });
    }
    const models = result.models.map((one) => (isLoading ? { ...one, loaded: true } : one));
    await reportPins({ models }, args.json === true);
  },
});

/** Shared with `unpin`. */
export async function reportPins(result: PinResult, isJson: boolean): Promise<void> {
  if (isJson) return printJson(result);
  const lines = result.models.map(
    ({ model, pinned }) =>
      `${pinned ? "Pinned" : "Unpinned"} ${stripControls(displayReference(model))}\n`,
  );
  await print(lines.join(""));
}
