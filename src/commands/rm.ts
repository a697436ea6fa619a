import type { RemoveEvent } from "../api/models.ts";
import { connect } from "../client/connect.ts";
import { type AppError, toAppError, toErrorObject } from "../errors.ts";
import { printJson } from "../terminal/json.ts";
import { print } from "../terminal/output.ts";
import { stripControls } from "../terminal/style.ts";
import { JSON_FLAG, defineCommand } from "./command.ts";

export const command = defineCommand({
  args: {
    models: { type: "positional", rest: true, description: "The models" },
    force: {
      type: "boolean",
      alias: "f",
      description:
        "Also if it has several tags, or is loaded: answers get a minute to end. Not finding it is no error",
    },
    json: JSON_FLAG,
  },
  /** Goes on after a failure, so that one wrong name does not hide the others; the exit code tells. */
  async run({ args, config, paths, signal }) {
    const client = await connect("models", { config, paths, signal });
    const events: RemoveEvent[] = [];
    const failures: AppError[] = [];
    for (const model of args.models) {
      try {
        const removed = await patiently(model, () =>
          client.remove(model, { signal, force: args.force === true }),
        );
        events.push(...removed);
        if (args.json !== true) await print(removed.map(renderEvent).join(""));
      } catch (thrown) {
        signal.throwIfAborted();
        const error = toAppError(thrown);
        if (args.force !== true || error.code !== "model_not_found") failures.push(error);
      }
    }
    const errors = failures.map(toErrorObject);
    const [error] = errors;
    if (args.json === true)
      await printJson({ removed: events, errors, ...(error === undefined ? {} : { error }) });
    else
      for (const { message, hint } of failures)
        process.stderr.write(`error: ${message}\n${hint === undefined ? "" : `hint: ${hint}\n`}`);
    return failures[0]?.exitCode ?? 0;
  },
});

// --- internal ---

/** Removing takes milliseconds, unless somebody is being answered. */
const PATIENCE_MS = 1000;

/** Says what it waits for, if it has to. */
async function patiently<T>(model: string, work: () => Promise<T>): Promise<T> {
  const note = `waiting for what ${stripControls(model)} is answering, up to a minute\n`;
  const timer = setTimeout(() => process.stderr.write(note), PATIENCE_MS);
  try {
    return await work();
  } finally {
    clearTimeout(timer);
  }
}

function renderEvent(event: RemoveEvent): string {
  return "Untagged" in event ? `Untagged: ${event.Untagged}\n` : `Deleted: ${event.Deleted}\n`;
}
