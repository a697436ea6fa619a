/** Files on this machine that become layers. */
import { open, stat } from "node:fs/promises";
import { basename, isAbsolute } from "node:path";
import { AppError } from "../errors.ts";
import { toReadError } from "../store/read-error.ts";
import { safePath } from "../store/safe-path.ts";
import type { LayerRole } from "./artifact.ts";

/** Licences and templates are texts; what is larger was named by mistake. Bytes. */
const MAX_TEXT_BYTES = 4 * 1024 * 1024;

/** A file as it was when it was looked at. */
export interface FoundFile {
  /** Absolute. */
  readonly location: string;
  readonly sizeBytes: number;
  readonly modifiedMs: number;
}

export interface InputFile extends FoundFile {
  readonly role: LayerRole;
  /** Within the artifact, with forward slashes. */
  readonly path: string;
}

/** @throws conflict if the file is not what it was when it was looked at */
export async function requireUnchanged(file: InputFile): Promise<void> {
  const found = await stat(file.location).catch(() => undefined);
  if (found?.size === file.sizeBytes && found.mtimeMs === file.modifiedMs) return;
  throw new AppError("conflict", `cannot package \`${file.path}\`: it changed meanwhile`, {
    hint: "Wait until whatever writes the file is done, and package it again.",
  });
}

/**
 * Reads it once to know that it can be read and is text.
 *
 * @param what such as `licence`, for messages
 * @throws usage, not_found, forbidden
 */
export async function readText(
  location: string,
  what: string,
  { signal }: { signal: AbortSignal },
): Promise<FoundFile> {
  requireAbsolute(location);
  signal.throwIfAborted();
  try {
    const found = await stat(location);
    const reason = textFault(found);
    if (reason !== undefined) throw unusable(location, what, reason);
    await using file = await open(location, "r");
    requireUtf8(location, what, await file.readFile());
    return { location, sizeBytes: found.size, modifiedMs: found.mtimeMs };
  } catch (error) {
    throw toReadError(location, error);
  }
}

/** @throws usage */
export function requireAbsolute(path: string): void {
  if (isAbsolute(path)) return;
  throw new AppError("usage", `cannot package \`${path}\`: the path is not absolute`, {
    hint: "Give the whole path of the file.",
  });
}

/**
 * Two files of one path would end up at one place; many file systems do not tell cases apart. A path that no bundle could
 * have would make a model that never runs.
 *
 * @throws usage
 */
export function checkPaths(files: readonly Pick<InputFile, "path" | "location">[]): void {
  const seen = new Set<string>();
  const directories = new Set<string>();
  for (const { path, location } of files) {
    refuseUnsafe(path, location);
    const key = keyOf(path);
    if (seen.has(key)) throw collision(path);
    seen.add(key);
    const names = key.split("/").slice(0, -1);
    for (const [index] of names.entries()) directories.add(names.slice(0, index + 1).join("/"));
  }
  for (const { path } of files) {
    if (directories.has(keyOf(path))) throw collision(path);
  }
}

// --- internal ---

function keyOf(path: string): string {
  return path.normalize("NFC").toLowerCase();
}

function collision(path: string): AppError {
  return new AppError("usage", `cannot package two files called \`${path}\``, {
    hint: "Rename one of them: many systems do not tell capitals from small letters.",
  });
}

function refuseUnsafe(path: string, location: string): void {
  try {
    safePath(path);
  } catch (cause) {
    throw new AppError(
      "usage",
      `cannot package ${JSON.stringify(location.slice(0, 200))}: not every system can have a file of this name`,
      {
        hint: 'Rename the file: leave out `< > : " | ? * \\`, control characters and names of devices.',
        cause,
      },
    );
  }
}

function textFault(found: { isFile(): boolean; isDirectory(): boolean; size: number }) {
  if (found.isDirectory()) return "it is a directory";
  if (!found.isFile()) return "it is not a regular file";
  if (found.size === 0) return "it is empty";
  return found.size > MAX_TEXT_BYTES ? `it has more than ${MAX_TEXT_BYTES} bytes` : undefined;
}

function requireUtf8(location: string, what: string, bytes: Uint8Array): void {
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw unusable(location, what, "it is not UTF-8 text");
  }
}

function unusable(location: string, what: string, reason: string): AppError {
  const message = `cannot use \`${basename(location)}\` as a ${what}: ${reason}`;
  return new AppError("usage", message, { hint: `Give the ${what} as a text file.` });
}
