import { readFile } from "node:fs/promises";
import { connect } from "../client/connect.ts";
import { logFile } from "../client/launch.ts";
import { errnoOf } from "../errors.ts";
import { openOutput, print } from "../terminal/output.ts";
import { defineCommand } from "./command.ts";

export const command = defineCommand({
  args: {
    follow: { type: "boolean", alias: "f", description: "Go on showing what is added" },
  },
  async run({ args, config, paths, signal }) {
    const client = await connect("models", { config, paths, signal });
    if (client.transport.kind === "in-process" && args.follow !== true)
      return printLast(logFile({ paths }));
    const running =
      client.transport.kind === "in-process"
        ? await connect("running", { config, paths, signal })
        : client;
    const decoder = new TextDecoder();
    for await (const bytes of await running.logs({ signal, follow: args.follow === true })) {
      if (!(await openOutput().write(decoder.decode(bytes, { stream: true })))) return;
    }
  },
});

// --- internal ---

/** Without a runner the log of the last one is what a person wants to see. */
async function printLast(file: string): Promise<void> {
  try {
    await print(await readFile(file, "utf8"));
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
    process.stderr.write("There is no log yet: no runner has run.\n");
  }
}
