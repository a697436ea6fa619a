import { AppError } from "../../src/errors.ts";

/** What the work fails with; it is a failure that it does not. */
export async function failureOf(work: Promise<unknown>): Promise<AppError> {
  const error = await rejectionOf(work);
  if (error instanceof AppError) return error;
  throw new Error(`not an AppError: ${String(error)}`, { cause: error });
}

/** The same, for what is no error of ours. */
export async function rejectionOf(work: Promise<unknown>): Promise<unknown> {
  try {
    await work;
  } catch (error) {
    return error;
  }
  throw new Error("it did not fail");
}
