/** How engines on this machine get weights into memory: what the processor can do decides how often they lie there. */
import { readFile } from "node:fs/promises";
import type { WeightLoading } from "./memory.ts";
import { rearrangedBy } from "./rearranged.ts";

/** Some hundred processors, a kilobyte or two each, of which the first says all. Characters. */
const MAX_PROCESSOR_TEXT = 64 * 1024;

/** @param options.readText for tests; what cannot be read says nothing */
export async function readWeightLoading(
  options: {
    readonly platform?: NodeJS.Platform;
    readonly arch?: NodeJS.Architecture;
    readonly readText?: (path: string) => Promise<string>;
  } = {},
): Promise<WeightLoading> {
  const { platform = process.platform, arch = process.arch, readText = readUtf8 } = options;
  const text = platform === "linux" ? await readText("/proc/cpuinfo").catch(() => "") : "";
  const flags =
    /^(?:flags|Features)\s*:\s*(.*)$/m.exec(text.slice(0, MAX_PROCESSOR_TEXT))?.[1] ?? "";
  // As the engine is told: see the environment that llama.cpp's arguments come with.
  const isMapped = platform !== "darwin";
  return { isMapped, ...rearrangedBy({ arch, flags: new Set(flags.split(" ")) }) };
}

// --- internal ---

function readUtf8(path: string): Promise<string> {
  return readFile(path, "utf8");
}
