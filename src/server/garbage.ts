/**
 * Collecting what requests leave behind. Most of it hangs outside the collector's heap, on objects that look small to it,
 * and the collector's own timer is off, for it would wake an idle runner.
 */

/** What so many requests leave is megabytes. */
const MANY_REQUESTS = 128;
/** Fewer are left to the collector: a pause would cost a single user more than it gives. */
const FEW_REQUESTS = 32;
/** No request has come for so long: the burst is over. */
const QUIET_MS = 500;

let requests = 0;
let lastMs = 0;
let timer: NodeJS.Timeout | undefined;

/** A request has come. */
export function countRequest(): void {
  requests += 1;
  lastMs = performance.now();
  if (requests % MANY_REQUESTS === 0) Bun.gc(false);
  if (requests >= FEW_REQUESTS) timer ??= setTimeout(collectIfQuiet, QUIET_MS).unref();
}

/** Something large has been let go of, or soon is. Some 20 ms, once; an idle process would keep it for as long as it is idle. */
export function collectSoon(): void {
  lastMs = performance.now();
  timer ??= setTimeout(collectIfQuiet, QUIET_MS).unref();
}

// --- internal ---

function collectIfQuiet(): void {
  const leftMs = lastMs + QUIET_MS - performance.now();
  timer = leftMs > 0 ? setTimeout(collectIfQuiet, leftMs).unref() : undefined;
  if (timer !== undefined) return;
  requests = 0;
  Bun.gc(true);
}
