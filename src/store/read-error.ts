/** Failures to read a model's file, in words. */
import { basename } from "node:path";
import { AppError, type AppErrorOptions, errnoOf } from "../errors.ts";

/** A file under the name that messages call it by: in the store a file is called by its digest. */
export interface NamedFile {
  /** Where it is. */
  readonly location: string;
  readonly name: string;
}

/** Turns a failure to read a file the user named into an error that says so; anything else comes back as it is. */
export function toReadError(path: string, error: unknown, name = basename(path)): unknown {
  if (error instanceof AppError) return error;
  const code = errnoOf(error);
  if (code === "ENOENT" || code === "ENOTDIR") {
    return new AppError("not_found", `cannot read \`${name}\`: there is no such file`, {
      hint: `Check the path \`${path}\`.`,
      cause: error,
    });
  }
  if (code === "EACCES" || code === "EPERM") {
    return new AppError("forbidden", `cannot read \`${name}\`: permission denied`, {
      hint: `Make \`${path}\` readable for this user.`,
      cause: error,
    });
  }
  return code === undefined
    ? error
    : invalidFile(name, `the system said ${code}`, { cause: error });
}

/** What is wrong with a file of weights. */
export function invalidFile(name: string, reason: string, options: AppErrorOptions = {}): AppError {
  return new AppError("invalid_model_file", `cannot read \`${name}\`: ${reason}`, options);
}

/** It ends too soon to say more. */
export function truncatedHeader(name: string): AppError {
  return invalidFile(name, "it is truncated: it ends within its header", {
    hint: "Get the file again: its transfer was cut short.",
  });
}
