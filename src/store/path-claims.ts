/** Paths of files that are to lie beside each other. Pure. */
import { AppError } from "../errors.ts";

/** Files and directories: some of each for as many layers as a manifest may have; a disk has only so many inodes. */
const MAX_NAMES = 65_536;
const MAX_SHOWN = 200;

/** Compared as Windows and macOS do, on every system: a model that opens here opens there. */
export class PathClaims {
  readonly #files = new Set<string>();
  readonly #directories = new Set<string>();

  /**
   * @param path safe, with forward slashes
   * @throws invalid_model_file if a file or directory has the name already, or there are too many
   */
  claim(path: string): void {
    const key = foldCase(path);
    const parents = key
      .split("/")
      .slice(0, -1)
      .map((_, index, all) => all.slice(0, index + 1).join("/"));
    const isTaken =
      this.#files.has(key) ||
      this.#directories.has(key) ||
      parents.some((parent) => this.#files.has(parent));
    if (isTaken) throw refused(`two of its files are called \`${shorten(path)}\``);
    this.#files.add(key);
    for (const parent of parents) this.#directories.add(parent);
    if (this.#files.size + this.#directories.size > MAX_NAMES)
      throw refused(`it has more than ${MAX_NAMES} files and directories`);
  }
}

// --- internal ---

/** By way of upper case, where `ß` is `SS` and `ſ` is `S`, as it is to disks that do not tell cases apart. */
function foldCase(path: string): string {
  return path.normalize("NFC").toUpperCase().toLowerCase().normalize("NFC");
}

function shorten(path: string): string {
  return path.length > MAX_SHOWN ? `${path.slice(0, MAX_SHOWN)}…` : path;
}

function refused(reason: string): AppError {
  return new AppError("invalid_model_file", `cannot open the model: ${reason}`, {
    hint: "Its files have to be packaged in another way.",
  });
}
