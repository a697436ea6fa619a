import { connect } from "../client/connect.ts";
import { formatBytes } from "../terminal/bytes.ts";
import { printJson } from "../terminal/json.ts";
import { print } from "../terminal/output.ts";
import { createProgress } from "../terminal/progress.ts";
import { JSON_FLAG, defineCommand } from "./command.ts";

export const command = defineCommand({
  args: { json: JSON_FLAG },
  /** @returns 1 if anything is wrong */
  async run({ args, config, paths, signal }) {
    const client = await connect("models", { config, paths, signal });
    using progress = createProgress({ quiet: args.json === true });
    const result = await client.verify({ signal, onProgress: progress.listener });
    progress.finish();
    const code = result.problems.length === 0 ? 0 : 1;
    if (args.json === true) {
      await printJson(result);
      return code;
    }
    for (const { digest, problem, models } of result.problems) {
      process.stderr.write(
        `error: ${digest}: ${problem} (used by ${models.join(", ") || "nothing"})\n`,
      );
    }
    if (code !== 0)
      process.stderr.write("hint: Remove those models with `tug rm` and get them again.\n");
    await print(
      `${result.blobs} blobs, ${formatBytes(result.bytes)}, ${result.problems.length} problems.\n`,
    );
    return code;
  },
});
