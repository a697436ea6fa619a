import type { Model } from "../api/models.ts";
import { connect } from "../client/connect.ts";
import { AppError } from "../errors.ts";
import { displayReference } from "../oci/reference.ts";
import { printJson } from "../terminal/json.ts";
import { print } from "../terminal/output.ts";
import { createProgress } from "../terminal/progress.ts";
import { openArchiveFile } from "./archive-file.ts";
import { JSON_FLAG, defineCommand } from "./command.ts";

export const command = defineCommand({
  args: {
    file: {
      type: "positional",
      description: "A tar archive, also compressed with gzip or zstd; `-` reads stdin",
    },
    quiet: { type: "boolean", alias: "q", description: "Show no progress" },
    json: JSON_FLAG,
  },
  details:
    "Reads archives of `tug export`, of Docker Model Runner, and OCI image layouts as tar files, such as skopeo's `oci-archive`.",
  async run({ args, config, paths, signal }) {
    const archive = await openSource(args.file);
    const client = await connect("transfer", { config, paths, signal });
    using progress = createProgress({ quiet: args.quiet === true || args.json === true });
    const models = await client.import(archive, { signal, onProgress: progress.listener });
    progress.finish();
    if (args.json === true) return await printJson(models);
    await print(models.flatMap(toLines).join(""));
  },
});

/** A line for each name, as `tug pull` prints it. */
export function toLines({ id, tags }: Model): string[] {
  return tags.length === 0 ? [`${id}\n`] : tags.map((tag) => `${displayReference(tag)}@${id}\n`);
}

// --- internal ---

async function openSource(file: string): Promise<ReadableStream<Uint8Array>> {
  if (file !== "-") return openArchiveFile(file);
  if (process.stdin.isTTY) {
    throw new AppError("usage", "an archive is not read from a terminal", {
      hint: "Give a file, or redirect the input.",
    });
  }
  return Bun.stdin.stream();
}
