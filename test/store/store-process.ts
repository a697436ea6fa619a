import { join } from "node:path";

const PROGRAM = join(import.meta.dir, "..", "fakes", "store-process.ts");

export interface StoreProcess extends AsyncDisposable {
  /** The line it wrote when it came to the point where it stays. */
  readonly said: string;
  /** SIGKILL, and waits for the end. */
  kill(): Promise<void>;
}

/** Starts another process that uses a store, and waits for its first line. */
export async function startStoreProcess(...args: readonly string[]): Promise<StoreProcess> {
  const child = Bun.spawn([process.execPath, PROGRAM, ...args], {
    stdout: "pipe",
    stderr: "inherit",
  });
  const kill = async (): Promise<void> => {
    child.kill("SIGKILL");
    await child.exited;
  };
  let said = "";
  const decoder = new TextDecoder();
  for await (const chunk of child.stdout) {
    said += decoder.decode(chunk, { stream: true });
    if (said.includes("\n")) break;
  }
  if (!said.includes("\n")) throw new Error(`the process ended without a word: ${args.join(" ")}`);
  return { said: said.trim(), kill, [Symbol.asyncDispose]: kill };
}
