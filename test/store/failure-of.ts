/** What the work throws. Throws itself if it succeeds. */
export async function failureOf(
  work: Promise<unknown>,
): Promise<Error & { readonly code?: string }> {
  try {
    await work;
  } catch (error) {
    if (error instanceof Error) return error;
    throw error;
  }
  throw new Error("it succeeded");
}
