/**
 * Locks the Python packages of an engine anew: `bun run lock ENGINE [PACKAGE==VERSION …]`.
 *
 * Without packages those that are locked now are resolved once more. Needs `uv` on PATH, or its path in UV, and the
 * network. What it writes is reviewed like code: it is what users run.
 */
import { join } from "node:path";
import { trim } from "./trim.ts";

interface Lock {
  /** Of the repository. */
  readonly file: string;
  /** What is asked for, one a line. */
  readonly packages: readonly string[];
  /** The lowest Python; newer ones get what their markers say. */
  readonly python: string;
  /** Minor versions of Python 3 that it may be installed for: wheels of others are left out. */
  readonly pythons: readonly number[];
}

/** The C library of Debian 12 is 2.36, Ubuntu 22.04's 2.35. */
const GLIBC = 35;

const ENGINES: Readonly<Record<string, Lock>> = {
  vllm: {
    file: "backends/vllm/requirements.txt",
    packages: ["vllm"],
    python: "3.11",
    pythons: [11, 12, 13, 14],
  },
  sglang: {
    file: "backends/sglang/requirements.txt",
    packages: ["sglang"],
    python: "3.11",
    pythons: [11, 12],
  },
};

/** Resolving a thousand versions over a slow line. */
const BOUND_MS = 600_000;

const root = join(import.meta.dir, "..", "..");
const [engine = "", ...wanted] = process.argv.slice(2);
const chosen = ENGINES[engine];
if (chosen === undefined) {
  const known = Object.keys(ENGINES).join(", ");
  process.stderr.write(
    `usage: bun run lock ENGINE [PACKAGE==VERSION …]\nEngines with a lock that is trimmed: ${known}. Locks of others say in their first line how they were made.\n`,
  );
  process.exit(2);
}
await renew(chosen);

// --- internal ---

async function renew({ file, packages, python, pythons }: Lock): Promise<void> {
  const path = join(root, file);
  const before = await Bun.file(path).text();
  const asked = wanted.length > 0 ? wanted : packages.map((one) => pinned(one, before));
  const compiled = await compile(asked, python);
  const { requirements, missing } = trim(compiled, { pythons, glibc: GLIBC });
  for (const one of missing) process.stderr.write(`no wheel of ${one}\n`);
  await Bun.write(path, requirements);
  const count = requirements.match(/==/g)?.length ?? 0;
  process.stdout.write(`${file}: ${count} packages, locked for ${asked.join(", ")}\n`);
}

function pinned(name: string, lock: string): string {
  const line = lock.split("\n").find((one) => one.startsWith(`${name}==`));
  return line?.split(/[ ;\\]/)[0] ?? name;
}

async function compile(asked: readonly string[], python: string): Promise<string> {
  const uv = process.env["UV"] ?? "uv";
  const options = ["--universal", "--format", "pylock.toml", "--only-binary", ":all:"];
  const command = [
    uv,
    "pip",
    "compile",
    "-",
    ...options,
    "--python-version",
    python,
    "--no-header",
  ];
  const run = Bun.spawn(command, {
    stdin: new Blob([`${asked.join("\n")}\n`]),
    stderr: "inherit",
    timeout: BOUND_MS,
  });
  const text = await new Response(run.stdout).text();
  if ((await run.exited) !== 0) throw new Error(`uv ended with ${run.exitCode}`);
  return text;
}
