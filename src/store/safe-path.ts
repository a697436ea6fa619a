/** Paths that come from an artifact and become files. Pure. */
import { AppError } from "../errors.ts";

/** Each of them must be a file name on every system. */
const MAX_NAME_BYTES = 255;
const MAX_PATH_BYTES = 1024;
/** No model is a tenth as deep; each of them costs an inode. */
const MAX_DEPTH = 64;

/**
 * Checks a path relative to a model's root, with forward slashes.
 *
 * Refused are: empty and absolute paths, ones that leave the root, and names that Windows cannot have or treats as something
 * else (drives, streams, devices, backslashes, trailing dots), on every system, so that a model opens everywhere or nowhere.
 *
 * @param options.repair strip leading `../`: ModelPack tools write them for files that were packaged by absolute path
 * @throws invalid_model_file
 */
export function safePath(path: string, options: { repair?: boolean } = {}): string {
  const repaired = options.repair === true ? path.replace(/^(?:\.\.\/)+/, "") : path;
  const names = repaired.split("/").filter((name) => name !== ".");
  const problem = problemOf(repaired, names);
  if (problem === undefined) return names.join("/");
  const shown = path.length > 200 ? `${path.slice(0, 200)}…` : path;
  throw new AppError(
    "invalid_model_file",
    `cannot open the model: its file path ${JSON.stringify(shown)} ${problem}`,
    { hint: "Its files have to be packaged under other names." },
  );
}

// --- internal ---

/** @see https://learn.microsoft.com/windows/win32/fileio/naming-a-file */
const DEVICE = /^(?:con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³]) *(?:\.|$)/i;
// oxlint-disable-next-line no-control-regex -- control characters are what it looks for
const FORBIDDEN = /[\u0000-\u001F\u007F<>:"|?*\\]/;

function problemOf(path: string, names: readonly string[]): string | undefined {
  if (names.join("") === "") return "is empty";
  if (path.startsWith("/")) return "is absolute";
  if (Buffer.byteLength(path) > MAX_PATH_BYTES) return "is too long";
  if (names.length > MAX_DEPTH) return "is too deep";
  if (names.includes("..")) return "leaves the model's directory";
  if (names.includes("")) return "has an empty name in it";
  // Half a surrogate pair is no character: on a disk all of them become the same one.
  if (FORBIDDEN.test(path) || !path.isWellFormed())
    return "has characters that some systems do not allow";
  if (names.some((name) => DEVICE.test(name))) return "names a device on Windows";
  if (names.some((name) => /[. ]$/.test(name))) return "has a name that ends in a dot or a space";
  if (names.some((name) => Buffer.byteLength(name) > MAX_NAME_BYTES))
    return "has too long a name in it";
  return undefined;
}
