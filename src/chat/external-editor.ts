/** Writes a message in the person's own editor. */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AppError } from "../errors.ts";
import { INPUT_LIMIT } from "./line-editor.ts";

type Env = Readonly<Record<string, string | undefined>>;

/** The caller must have given the terminal back (cooked mode, nobody reading) and takes it again afterwards. */
export async function editExternally(text: string, env: Env = process.env): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "tug-prompt-"));
  const file = join(directory, "prompt.md");
  try {
    await writeFile(file, text, { mode: 0o600 });
    await runEditor(editorCommand(env), file);
    const edited = await readFile(file, "utf8");
    return edited.slice(0, INPUT_LIMIT).replace(/[\r\n]+$/, "");
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** `VISUAL`, then `EDITOR`, then the editor that every system has. */
export function editorCommand(env: Env, platform: NodeJS.Platform = process.platform): string {
  return env["VISUAL"] || env["EDITOR"] || (platform === "win32" ? "notepad" : "vi");
}

// --- internal ---

async function runEditor(command: string, file: string): Promise<void> {
  // A shell reads the command, because people put arguments and quotes into EDITOR.
  const words =
    process.platform === "win32"
      ? ["cmd", "/d", "/s", "/c", `${command} "${file}"`]
      : ["/bin/sh", "-c", `${command} "$1"`, "sh", file];
  const child = Bun.spawn(words, { stdio: ["inherit", "inherit", "inherit"] });
  const exitCode = await child.exited;
  if (exitCode === 0) return;
  throw new AppError("internal", `cannot edit the message: \`${command}\` ended with ${exitCode}`, {
    hint: "Set VISUAL or EDITOR to an editor that is installed.",
  });
}
