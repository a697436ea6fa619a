/** Whether engines that are Python packages can be installed here; if not, why. */

/** A machine without a way there must not wait long. */
const LOOKUP_TIMEOUT_MS = 5000;

export const PYTHON_PROBLEM: string | undefined = await findProblem();

// --- internal ---

async function findProblem(): Promise<string | undefined> {
  if (Bun.which("python3") === null) return "there is no python3";
  const index = process.env["UV_DEFAULT_INDEX"] ?? process.env["PIP_INDEX_URL"];
  try {
    const signal = AbortSignal.timeout(LOOKUP_TIMEOUT_MS);
    const answer = await fetch(`${index ?? "https://pypi.org/simple"}/uv/`, {
      method: "HEAD",
      signal,
    });
    return answer.ok ? undefined : `the package index answered ${answer.status}`;
  } catch {
    return "the package index cannot be reached";
  }
}
