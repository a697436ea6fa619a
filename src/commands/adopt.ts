import type { AdoptResult } from "../api/models.ts";
import { connect } from "../client/connect.ts";
import { formatBytes } from "../terminal/bytes.ts";
import { printJson } from "../terminal/json.ts";
import { print } from "../terminal/output.ts";
import { createProgress } from "../terminal/progress.ts";
import { JSON_FLAG, defineCommand } from "./command.ts";

type AdoptedFiles = AdoptResult["files"];

const PROGRAMS: Readonly<Record<AdoptedFiles[number]["program"], string>> = {
  ollama: "Ollama",
  huggingface: "Hugging Face",
  lmstudio: "LM Studio",
  llamacpp: "llama.cpp",
};

export const command = defineCommand({
  args: {
    "dry-run": { type: "boolean", description: "Only say what there is" },
    json: JSON_FLAG,
  },
  details:
    "Files stay where they are, untouched. A pull that needs one of them takes it from there instead of fetching it.",
  /** Always in this process: the files are on this machine, and no runner is needed. */
  async run({ args, config, paths, signal }) {
    const isDry = args["dry-run"] === true;
    const client = await connect("local", { config, paths, signal });
    using progress = createProgress({ quiet: args.json === true, transient: true });
    const result = await client.adopt(
      { dry_run: isDry },
      { signal, onProgress: progress.listener },
    );
    progress.finish();
    if (args.json === true) return await printJson(result);
    if (result.files.length > 0) {
      const { renderTable } = await import("../terminal/table.ts");
      await print(`${renderTable(["PROGRAM", "FILES", "SIZE"], toRows(result.files))}\n`);
    }
    await print(summarize(result, isDry));
  },
});

/** One row for each program that has any, in a fixed order. */
export function toRows(files: AdoptedFiles): string[][] {
  const byProgram = Map.groupBy(files, ({ program }) => program);
  return Object.entries(PROGRAMS).flatMap(([program, name]) => {
    const own = byProgram.get(program as keyof typeof PROGRAMS) ?? [];
    const bytes = own.reduce((sum, { size }) => sum + size, 0);
    return own.length === 0 ? [] : [[name, String(own.length), formatBytes(bytes)]];
  });
}

/** One line; in a dry run also what is still to be read. */
export function summarize({ files, bytes }: AdoptResult, isDry: boolean): string {
  if (files.length === 0) return "Found no models of other programs.\n";
  const count = `${files.length} ${files.length === 1 ? "file" : "files"}, ${formatBytes(bytes)}`;
  if (!isDry) return `Pulls can use ${count}.\n`;
  const unread = files.filter(({ digest }) => digest === null);
  const readBytes = unread.reduce((sum, { size }) => sum + size, 0);
  const reading =
    unread.length === 0
      ? ""
      : `, after reading ${unread.length} of them once (${formatBytes(readBytes)})`;
  return `Pulls could use ${count}${reading}.\n`;
}
