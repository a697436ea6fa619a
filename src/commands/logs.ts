import { connect } from "../client/connect.ts";
import { openOutput } from "../terminal/output.ts";
import { stripControls } from "../terminal/style.ts";
import { defineCommand } from "./command.ts";

export const command = defineCommand({
  args: {
    follow: { type: "boolean", alias: "f", description: "Go on showing what is added" },
    since: {
      type: "string",
      valueHint: "TIME",
      description: "Only what was logged since: 10m, 2h, or a time like 2026-01-31T12:00:00Z",
    },
    tail: { type: "string", alias: "n", valueHint: "N", description: "Only the last N lines" },
    model: { type: "string", valueHint: "MODEL", description: "Only what is about this model" },
    "no-engines": { type: "boolean", description: "Leave out what the engines print" },
  },
  details: `The runner's lines and those of its engines, by time; an engine's have its model's name before them. The files are in
the logs directory: runner.log and worker-N.log, at most 8 MiB each, and as much from before that as .1.`,
  async run({ args, config, paths, signal }) {
    const client = await connect("models", { config, paths, signal });
    const output = openOutput();
    const ends = AbortSignal.any([signal, output.closed]);
    const query = {
      follow: args.follow === true ? "true" : undefined,
      since: args.since,
      tail: args.tail,
      model: args.model,
      "no-engines": args["no-engines"] === true ? "true" : undefined,
    };
    try {
      const chunks = await client.logs(query, { signal: ends, onWarning: warn });
      const isEmpty = !(await show(chunks));
      if (isEmpty && args.follow !== true) process.stderr.write("Nothing was logged.\n");
    } catch (error) {
      // A reader that left has seen what it wanted.
      if (!output.closed.aborted) throw error;
    }
  },
});

// --- internal ---

function warn(message: string): void {
  process.stderr.write(`note: ${stripControls(message)}\n`);
}

/**
 * An engine prints what it likes: at a terminal nothing of it may steer.
 *
 * @returns whether there was anything
 */
async function show(chunks: AsyncIterable<Uint8Array>): Promise<boolean> {
  const output = openOutput();
  const decoder = new TextDecoder();
  let hasShown = false;
  for await (const bytes of chunks) {
    hasShown = true;
    const text = decoder.decode(bytes, { stream: true });
    if (!(await output.write(output.isTerminal ? stripControls(text) : text))) break;
  }
  return hasShown;
}
