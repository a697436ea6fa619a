/** Paths of files that are to lie beside each other. Pure. */
import { AppError } from "../errors.ts";

/** Compared as Windows and macOS do, on every system: a model that opens here opens there. */
export class PathClaims {
  readonly #files = new Set<string>();
  readonly #directories = new Set<string>();

  /** @param path safe, with forward slashes @throws invalid_model_file if a file or directory has the name already */
  claim(path: string): void {
    const key = path.normalize("NFC").toLowerCase();
    const parents = key
      .split("/")
      .slice(0, -1)
      .map((_, index, all) => all.slice(0, index + 1).join("/"));
    const isTaken =
      this.#files.has(key) ||
      this.#directories.has(key) ||
      parents.some((parent) => this.#files.has(parent));
    if (isTaken) {
      throw new AppError(
        "invalid_model_file",
        `cannot open the model: two of its files are called \`${path}\``,
      );
    }
    this.#files.add(key);
    for (const parent of parents) this.#directories.add(parent);
  }
}
