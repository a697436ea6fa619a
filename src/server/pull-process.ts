/** A pull in a process of its own, at a lower priority. */
import { setPriority } from "node:os";
import type { PullRequest, PullResult } from "../api/models.ts";
import type { ProgressEvent } from "../api/progress.ts";
import { AppError } from "../errors.ts";
import { log } from "../log.ts";
import type { PullProcess } from "./pull-jobs.ts";

/** As nice as what people start with `nice`: it takes what answers leave. */
const PRIORITY = 10;
/** An event is short; what exceeds this is not ours. Characters. */
const MAX_LINE_LENGTH = 1024 * 1024;
/** Of what it says on stderr, for the message when it dies. Characters. */
const MAX_STDERR = 4096;
/** Of those, what a message shows. */
const MAX_SHOWN = 200;

export interface PullCommand {
  /** This program, and what makes it read a request from stdin and answer with NDJSON on stdout. */
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
}

/**
 * The request goes through stdin, because arguments can be read by other users. Stdin then stays open for as long as this
 * process lives: its end tells the child that nobody wants the model any more.
 */
export function spawnPull({ command, env }: PullCommand, request: PullRequest): PullProcess {
  const child = Bun.spawn([...command], {
    stdin: "pipe",
    stdout: "pipe",
    stderr: "pipe",
    // What steers Bun itself is the runner's.
    env: Object.fromEntries(Object.entries(env).filter(([name]) => !name.startsWith("BUN_"))),
    windowsHide: true,
  });
  lowerPriority(child.pid);
  void tell(child.stdin, request);
  const said = tail(child.stderr);
  return {
    pid: child.pid,
    events: events(child.stdout),
    ended: child.exited.then(async () => describeEnd(child, await said)),
    kill: (signal) => child.kill(signal),
  };
}

// --- internal ---

/** A child that died already says so by how it ended. */
async function tell(stdin: Bun.FileSink, request: PullRequest): Promise<void> {
  try {
    await stdin.write(`${JSON.stringify(request)}\n`);
    await stdin.flush();
  } catch (error) {
    log.debug(`pulls: could not hand over the request reason=${(error as Error).message}`);
  }
}

function lowerPriority(pid: number): void {
  try {
    setPriority(pid, PRIORITY);
  } catch (error) {
    log.debug(`pulls: could not lower the priority pid=${pid} reason=${(error as Error).message}`);
  }
}

async function* events(
  stdout: ReadableStream<Uint8Array>,
): AsyncGenerator<ProgressEvent<PullResult>> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const bytes of stdout) {
    rest += decoder.decode(bytes, { stream: true });
    const lines = rest.split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) if (line !== "") yield parseEvent(line);
    if (rest.length > MAX_LINE_LENGTH) throw unreadable();
  }
}

function parseEvent(line: string): ProgressEvent<PullResult> {
  try {
    const event = JSON.parse(line) as { type?: unknown } | null;
    if (typeof event?.type === "string") return event as ProgressEvent<PullResult>;
  } catch {
    // Said below.
  }
  throw unreadable();
}

function unreadable(): AppError {
  return new AppError("internal", "the process that pulls said something that is no progress");
}

async function tail(stderr: ReadableStream<Uint8Array>): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const bytes of stderr) {
    text = (text + decoder.decode(bytes, { stream: true })).slice(-MAX_STDERR);
  }
  return text.trim();
}

function describeEnd(child: Bun.Subprocess, stderr: string): string {
  const how =
    child.signalCode === null
      ? `its process left with ${child.exitCode}`
      : `its process was ended by ${child.signalCode}`;
  const last = stderr.split("\n").at(-1)?.slice(0, MAX_SHOWN) ?? "";
  return last === "" ? how : `${how}: ${last}`;
}
