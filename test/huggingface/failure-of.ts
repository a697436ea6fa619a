import { AppError } from "../../src/errors.ts";

/** What the work fails with. Throws itself if it succeeds, or fails with what is not meant for people. */
export async function failureOf(work: (() => unknown) | Promise<unknown>): Promise<AppError> {
  try {
    await (typeof work === "function" ? work() : work);
  } catch (error) {
    if (error instanceof AppError) return error;
    throw error;
  }
  throw new Error("it succeeded");
}
