/** Metrics of the engines themselves, asked for where they listen and told apart by labels. */
import { AppError, toAppError } from "../../errors.ts";
import { type EngineAddress, engineTarget } from "../../runtime/engine-address.ts";
import { type Family, parseMetrics, relabel } from "./prometheus-text.ts";

/** An engine that is busy with a long prompt answers when it is through with a batch. Milliseconds. */
const TIMEOUT_MS = 2000;
/** llama-server writes 3 kB, vLLM some 100. Bytes. */
const MAX_BYTES = 1024 * 1024;
/** A label is a name, not a text. Characters. */
const MAX_LABEL = 200;

export interface EngineTarget {
  readonly workerId: number;
  readonly backend: string;
  readonly modelName: string;
  readonly mode: string;
  readonly address: EngineAddress;
  readonly metricsPath: string;
}

export interface EngineMetrics {
  /** Of each engine that answered. */
  readonly families: readonly (readonly Family[])[];
  readonly failures: readonly { readonly target: EngineTarget; readonly error: AppError }[];
}

/** All at once; one that fails is left out. @param options.timeoutMs of each; 2 s unless given */
export async function scrapeEngines(
  targets: readonly EngineTarget[],
  options: { readonly timeoutMs?: number } = {},
): Promise<EngineMetrics> {
  const timeoutMs = options.timeoutMs ?? TIMEOUT_MS;
  const results = await Promise.allSettled(targets.map((target) => scrape(target, timeoutMs)));
  // In the order of the targets, whoever was faster: a text that changes its order compresses badly.
  const families = results.flatMap((result) =>
    result.status === "fulfilled" ? [result.value] : [],
  );
  const failures = targets.flatMap((target, index) => {
    const result = results[index];
    return result?.status === "rejected" ? [{ target, error: toAppError(result.reason) }] : [];
  });
  return { families, failures };
}

// --- internal ---

async function scrape(target: EngineTarget, timeoutMs: number): Promise<Family[]> {
  const { url, init } = engineTarget(target.address, target.metricsPath);
  const response = await fetch(url, {
    ...init,
    keepalive: false,
    redirect: "manual",
    signal: AbortSignal.timeout(timeoutMs),
  });
  const text = await readBounded(response);
  if (response.status !== 200) {
    throw new AppError("worker_failed", `cannot read metrics: status ${response.status}`);
  }
  const { workerId, backend, modelName, mode } = target;
  return relabel(parseMetrics(text), [
    ["backend", backend],
    ["model", modelName.slice(0, MAX_LABEL)],
    ["mode", mode],
    ["worker", String(workerId)],
  ]);
}

async function readBounded(response: Response): Promise<string> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of response.body ?? []) {
    size += chunk.byteLength;
    if (size > MAX_BYTES) {
      throw new AppError("worker_failed", `cannot read metrics: more than ${MAX_BYTES} bytes`);
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}
