/** Engines on disk as an installer leaves them, without anything that runs. */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";

import type { Installation } from "../../../src/runtime/backend.ts";
import { activate } from "../../../src/runtime/installer/installed.ts";
import { installationDirectory, writeRecord } from "../../../src/runtime/installer/layout.ts";

export const ENGINE = "llama.cpp";

/** @param label `VERSION-VARIANT` */
export async function putEngine(
  root: string,
  label: string,
  backend = ENGINE,
): Promise<Installation> {
  const at = label.lastIndexOf("-");
  const [version, variant] = [label.slice(0, at), label.slice(at + 1)];
  const directory = installationDirectory(root, backend, { version, variant });
  await mkdir(directory, { recursive: true });
  const program = join(directory, "llama-server");
  await writeFile(program, "1234567890");
  const installedAt = "2026-01-01T00:00:00.000Z";
  const facts = { backend, version, variant, source: "github", installedAt };
  await writeRecord(directory, { ...facts, directory, command: ["{directory}/llama-server"] });
  return { ...facts, directory, command: [program] };
}

/** One after the other becomes the active one. */
export async function putActive(
  root: string,
  ...labels: readonly string[]
): Promise<Installation[]> {
  const made: Installation[] = [];
  for (const label of labels) {
    const installation = await putEngine(root, label);
    await activate(root, installation);
    made.push(installation);
  }
  return made;
}

/** One of the user's own. */
export async function putInPlace(directory: string, version: string): Promise<Installation> {
  await mkdir(directory, { recursive: true });
  const program = join(directory, "llama-server");
  await writeFile(program, "theirs");
  return {
    backend: ENGINE,
    version,
    variant: "host",
    source: "path",
    directory,
    command: [program],
    installedAt: "2026-01-01T00:00:00.000Z",
  };
}
