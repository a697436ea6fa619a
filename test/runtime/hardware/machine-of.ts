/** Machines made of texts. */
import type { HardwareIo } from "../../../src/runtime/hardware/io.ts";
import type { ToolAnswer } from "../../../src/runtime/hardware/probe.ts";

const GIB = 1024 ** 3;

export interface Recorded {
  readonly files?: Readonly<Record<string, string>>;
  /** What tools print, by whole command or by name; those that are not named are not there. */
  readonly tools?: Readonly<Record<string, string>>;
  /** Of tools that fail: what they print. */
  readonly failing?: Readonly<Record<string, string>>;
}

export interface RecordedIo extends HardwareIo {
  /** Commands that were run, in order. */
  readonly asked: readonly string[];
}

export function machineOf({ files = {}, tools = {}, failing = {} }: Recorded): RecordedIo {
  const asked: string[] = [];
  const ask = (argv: readonly string[]): ToolAnswer => {
    const [failure, answer] = [find(failing, argv), find(tools, argv)];
    if (failure === undefined && answer === undefined) return { kind: "missing" };
    asked.push(argv.join(" "));
    return failure === undefined
      ? { kind: "answered", output: answer ?? "" }
      : { kind: "failed", output: failure };
  };
  return {
    asked,
    read: (path) => Promise.resolve(files[path] ?? ""),
    list: (path) => {
      const below = Object.keys(files).filter((name) => name.startsWith(`${path}/`));
      const names = below.map((name) => name.slice(path.length + 1).split("/")[0] ?? "");
      return Promise.resolve([...new Set(names)]);
    },
    run: (argv) => {
      const answer = ask(argv);
      return Promise.resolve(answer.kind === "answered" ? answer.output : "");
    },
    ask: (argv) => Promise.resolve(ask(argv)),
    memory: () => ({ totalBytes: 8 * GIB, freeBytes: 3 * GIB }),
  };
}

function find(
  outputs: Readonly<Record<string, string>>,
  argv: readonly string[],
): string | undefined {
  return outputs[argv.join(" ")] ?? outputs[argv[0] ?? ""];
}

/** A file of `test/fixtures/hardware/`. */
export function recorded(name: string): Promise<string> {
  return Bun.file(`${import.meta.dir}/../../fixtures/hardware/${name}`).text();
}
