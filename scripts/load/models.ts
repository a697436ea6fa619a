/** A home with an engine and a few random models of different size in its store. */
import { mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type RandomModelSpec, writeRandomModel } from "../../test/helpers/random-model.ts";
import { BINARY, ensureCompiled } from "../compile/freshness.ts";

export interface LoadHome extends AsyncDisposable {
  readonly path: string;
  readonly models: readonly string[];
  /** Runs `tug` in it; stdout. @throws Error if it fails */
  tug(args: readonly string[]): Promise<string>;
  /** Bytes that Tug expects a model to hold. */
  estimate(model: string, contextSize: number): Promise<number>;
}

/** @param specs one model each; they are called `load/m0`, `load/m1`, … */
export async function loadHome(specs: readonly RandomModelSpec[]): Promise<LoadHome> {
  await ensureCompiled();
  const path = await mkdtemp(join(tmpdir(), "tug-load-"));
  const env = { ...process.env, TUG_HOME: path, TUG_PORT: "0" };
  const tug = async (args: readonly string[]): Promise<string> => {
    const child = Bun.spawn([BINARY, ...args], { env, stdio: ["ignore", "pipe", "pipe"] });
    const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text()]);
    const exitCode = await child.exited;
    if (exitCode === 0) return stdout;
    throw new Error(`\`tug ${args.join(" ")}\` left with ${exitCode}: ${stderr}${stdout}`);
  };
  await tug(["install-runner"]);
  const models: string[] = [];
  for (const [index, spec] of specs.entries()) {
    const file = join(path, `m${index}.gguf`);
    await writeRandomModel(file, spec);
    const { size } = await stat(file);
    await tug(["package", "--gguf", file, `load/m${index}`]);
    await rm(file);
    models.push(`load/m${index}`);
    console.log(`load/m${index}: ${(size / 1e6).toFixed(0)} MB`);
  }
  return {
    path,
    models,
    tug,
    estimate: async (model, contextSize) => {
      const args = ["estimate", model, "--ctx-size", String(contextSize), "--json"];
      const { estimate } = JSON.parse(await tug(args)) as { estimate: Record<string, number> };
      return Object.values(estimate).reduce((sum, bytes) => sum + bytes, 0);
    },
    [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }),
  };
}
