import { resolve } from "node:path";
import type { ExportRequest } from "../api/models.ts";
import { connect } from "../client/connect.ts";
import { AppError } from "../errors.ts";
import { formatBytes } from "../terminal/bytes.ts";
import { printJson } from "../terminal/json.ts";
import { createProgress } from "../terminal/progress.ts";
import { writeArchiveFile, writeArchiveToStdout } from "./archive-file.ts";
import { type ArgumentValues, JSON_FLAG, defineCommand } from "./command.ts";

const ARGS = {
  models: { type: "positional", rest: true, description: "The models" },
  output: {
    type: "string",
    alias: "o",
    valueHint: "FILE",
    description: "Where to (stdout unless given, or with `-`)",
  },
  "missing-from": {
    type: "string",
    valueHint: "FILE",
    description:
      "Leave out what this names: an earlier export, or the other side's `tug list --json`",
  },
  quiet: { type: "boolean", alias: "q", description: "Show no progress" },
  json: JSON_FLAG,
} as const;

export const command = defineCommand({
  args: ARGS,
  details:
    "The archive is an OCI image layout as a tar file; `tug import`, skopeo and oras read it, and Docker Model Runner if it holds one model.",
  async run({ args, config, paths, signal }) {
    const file = toFile(args);
    const client = await connect("transfer", { config, paths, signal });
    const archive = await client.export(toExportRequest(args), { signal });
    const { sizeBytes } = archive;
    if (file === undefined) return writeArchiveToStdout(archive);
    using progress = createProgress({ quiet: args.quiet === true || args.json === true });
    const report = { type: "progress", id: file, phase: "exporting" } as const;
    await writeArchiveFile(file, archive, (done) =>
      progress.listener({ ...report, done_bytes: done, total_bytes: sizeBytes }),
    );
    progress.finish();
    if (args.json === true) return await printJson({ file: resolve(file), size_bytes: sizeBytes });
    if (args.quiet !== true) process.stderr.write(`Wrote ${formatBytes(sizeBytes)} to ${file}.\n`);
  },
});

/** Paths become absolute here: the API knows no working directory. @throws usage */
export function toExportRequest(args: ArgumentValues<typeof ARGS>): ExportRequest {
  if (args.models.length === 0) {
    throw new AppError("usage", "say which models to export", { hint: "`tug list` shows them." });
  }
  const earlier = args["missing-from"];
  return {
    models: args.models,
    ...(earlier === undefined ? {} : { missing_from: resolve(earlier) }),
  };
}

// --- internal ---

/** Undefined for stdout. @throws usage */
function toFile({ output = "-", json }: ArgumentValues<typeof ARGS>): string | undefined {
  if (output !== "-") return output;
  if (json === true) {
    throw new AppError("usage", "stdout cannot take the archive and JSON", {
      hint: "Give a file with `-o FILE`.",
    });
  }
  if (process.stdout.isTTY) {
    throw new AppError("usage", "an archive is not written to a terminal", {
      hint: "Give a file with `-o FILE`, or redirect the output.",
    });
  }
  return undefined;
}
