/**
 * `bun run demo`: from a clean checkout to an answer. Installs and compiles only what is not up to date, then asks the
 * built-in model one question with a home of its own (`dist/demo-home`, kept, so that the next time is fast).
 */
import { join } from "node:path";
import { BINARY, ensureCompiled, ROOT } from "./compile/freshness.ts";

const QUESTION = "What is the capital of France?";
const EXPECTED = /\bParis\b/;
const HOME = join(ROOT, "dist", "demo-home");

if (import.meta.main) {
  try {
    process.exitCode = await demo();
  } catch (error) {
    console.error(`error: ${(error as Error).message}`);
    process.exitCode = 1;
  }
}

// --- internal ---

/** @returns the exit code */
async function demo(): Promise<number> {
  const startedAt = performance.now();
  // A runner of an older build with the same version would answer in place of the one just compiled.
  if (await ensureCompiled()) await run(["stop-runner", "--force"], { show: false });
  console.error(`$ tug run pebble ${JSON.stringify(QUESTION)}`);
  const { exitCode, stdout } = await run(["run", "pebble", QUESTION], { show: true });
  if (exitCode !== 0) {
    console.error(`error: tug left with ${exitCode}`);
    return 1;
  }
  if (!EXPECTED.test(stdout)) {
    console.error("error: the answer does not contain Paris");
    return 1;
  }
  console.error(`Answered in ${((performance.now() - startedAt) / 1000).toFixed(1)} s.`);
  return 0;
}

async function run(
  args: readonly string[],
  { show }: { show: boolean },
): Promise<{ exitCode: number; stdout: string }> {
  const child = Bun.spawn([BINARY, ...args], {
    // Any free port: the demo is not to take the one of a runner in use.
    env: { TUG_PORT: "0", ...process.env, TUG_HOME: HOME },
    stdio: ["ignore", "pipe", show ? "inherit" : "ignore"],
  });
  const decoder = new TextDecoder();
  let stdout = "";
  for await (const chunk of child.stdout) {
    if (show) process.stdout.write(chunk);
    stdout += decoder.decode(chunk, { stream: true });
  }
  return { exitCode: await child.exited, stdout };
}
