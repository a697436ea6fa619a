import { join } from "node:path";

interface Slot {
  readonly is_processing: boolean;
  readonly next_token?: readonly { readonly n_decoded: number }[];
}

/** Asks the engine of the only worker itself, through the socket that the runner uses. */
export async function engineSlots(home: string): Promise<Slot[]> {
  const response = await fetch("http://engine/slots", { unix: await workerSocket(home) });
  return (await response.json()) as Slot[];
}

// --- internal ---

/** @throws Error unless exactly one worker has a socket */
async function workerSocket(home: string): Promise<string> {
  const run = join(home, "run");
  const sockets = await Array.fromAsync(
    new Bun.Glob("w*/e.sock").scan({ cwd: run, onlyFiles: false }),
  );
  const [only] = sockets;
  if (only === undefined || sockets.length > 1)
    throw new Error(`one worker's socket expected, not [${sockets.join(", ")}]`);
  return join(run, only);
}
