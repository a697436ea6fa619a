/** Process entry: the role, the signals, the exit code. The only place that exits. */
import { VERSION } from "./version.ts";

const words = process.argv.slice(2);

// A reader that has seen enough (`tug list | head`) is not an error; whoever writes is told (terminal/output.ts), and work
// that is not done yet must not end as if it were.
process.stdout.on("error", () => {});

// The version alone needs none of the modules below: they load when they are asked for.
if (words.length === 1 && (words[0] === "--version" || words[0] === "-v")) {
  process.stdout.write(`tug ${VERSION}\n`);
} else {
  await start();
}

// --- internal ---

async function start(): Promise<never> {
  const interrupt = new AbortController();
  let received: NodeJS.Signals | undefined;
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.on(signal, () => {
      // A second signal means now.
      if (received !== undefined) process.exit(130);
      received = signal;
      interrupt.abort();
    });
  }
  const { runCli } = await import("./cli.ts");
  const code = await runCli(words, interrupt.signal);
  if (code === 130 && received === "SIGINT" && process.platform !== "win32") dieOfInterrupt();
  process.exit(code);
}

/** A shell script stops only if its child died of SIGINT; exit code 130 would let it go on. */
function dieOfInterrupt(): void {
  process.removeAllListeners("SIGINT");
  process.kill(process.pid, "SIGINT");
}
