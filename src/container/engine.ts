/** The program of this machine that runs containers: found, never installed. */
import { AppError } from "../errors.ts";
import { complaintOf, runTool } from "./command.ts";

export type ContainerKind = "docker" | "podman";

export interface ContainerEngine {
  readonly kind: ContainerKind;
  /** Absolute path. */
  readonly program: string;
  readonly version: string;
}

type Env = Readonly<Record<string, string | undefined>>;

/** Names the one to use; else the first that works. */
const ENGINE_VARIABLE = "TUG_CONTAINER_ENGINE";

/** A daemon that lives answers within milliseconds; one behind ssh takes longer. */
const ANSWER_MS = 5000;
/** What was found is believed for so long: plans and listings ask several times in a row. */
const REMEMBERED_MS = 10_000;
/** One that did not work may have been started since. */
const FAILED_MS = 1000;

const remembered = new Map<string, { readonly found: Promise<ContainerEngine>; untilMs: number }>();

/**
 * Docker if its daemon answers, else podman; `TUG_CONTAINER_ENGINE` in `env` names one of the two instead (`auto` counts as
 * nothing). Runs their `version`.
 *
 * @throws install_failed saying what is missing
 */
export async function findContainerEngine(env: Env): Promise<ContainerEngine> {
  const named = kindNamed(env);
  const key = [named ?? "", env["PATH"], env["DOCKER_HOST"], env["HOME"]].join("\n");
  const known = remembered.get(key);
  if (known !== undefined && performance.now() < known.untilMs) return known.found;
  const entry = { found: find(kindsOf(env), env), untilMs: Number.POSITIVE_INFINITY };
  // One environment at a time, but for tests.
  remembered.clear();
  remembered.set(key, entry);
  const endsAfter = (ms: number) => () => void (entry.untilMs = performance.now() + ms);
  void entry.found.then(endsAfter(REMEMBERED_MS), endsAfter(FAILED_MS));
  return entry.found;
}

/** Whether there is a program to ask; whether it works is not known. Runs nothing. */
export function hasContainerProgram(env: Env): boolean {
  return kindsOf(env).some((kind) => whereIs(kind, env) !== null);
}

// --- internal ---

/** Why one cannot be used: a clause. */
class Unusable {
  readonly reason: string;
  constructor(reason: string) {
    this.reason = reason;
  }
}

function kindNamed(env: Env): ContainerKind | undefined {
  const named = env[ENGINE_VARIABLE];
  return named === "docker" || named === "podman" ? named : undefined;
}

/** In the order in which they are tried. */
function kindsOf(env: Env): readonly ContainerKind[] {
  const named = kindNamed(env);
  return named === undefined ? ["docker", "podman"] : [named];
}

function whereIs(kind: ContainerKind, env: Env): string | null {
  return Bun.which(kind, { PATH: env["PATH"] ?? "" });
}

async function find(kinds: readonly ContainerKind[], env: Env): Promise<ContainerEngine> {
  const reasons: string[] = [];
  for (const kind of kinds) {
    const found = await tryOne(kind, env);
    if (!(found instanceof Unusable)) return found;
    reasons.push(found.reason);
  }
  throw new AppError("install_failed", `cannot run containers: ${reasons.join("; ")}`, {
    hint: reasons.some((reason) => reason.includes("daemon"))
      ? "Start Docker's daemon (`systemctl start docker`) and see that you may use it, or install podman (`apt install podman`)."
      : "Install podman (`apt install podman`) or Docker.",
  });
}

async function tryOne(kind: ContainerKind, env: Env): Promise<ContainerEngine | Unusable> {
  const program = whereIs(kind, env);
  if (program === null) return new Unusable(`${kind} is not on PATH`);
  const side = kind === "docker" ? "Server" : "Client";
  const { exitCode, stdout, stderr } = await ask(
    [program, "version", "--format", `{{.${side}.Version}}`],
    env,
  );
  const version = stdout.trim().split("\n").at(-1)?.trim() ?? "";
  if (exitCode === 0 && /^[\w.+~-]{1,64}$/.test(version)) {
    return { kind: await realKind(kind, program, env), program, version };
  }
  const complaint = complaintOf(stderr) || `it left with exit code ${exitCode}`;
  const what = kind === "docker" ? "the daemon of docker does not answer" : "podman does not work";
  return new Unusable(`${what}: ${complaint}`);
}

/** Podman may stand in for docker under its name; the two differ in how they are given GPUs. */
async function realKind(kind: ContainerKind, program: string, env: Env): Promise<ContainerKind> {
  if (kind === "podman") return kind;
  const { stdout } = await ask([program, "--version"], env);
  return /^podman/i.test(stdout.trim()) ? "podman" : "docker";
}

async function ask(argv: readonly string[], env: Env) {
  const { signal } = new AbortController();
  try {
    return await runTool(argv, { signal, timeoutMs: ANSWER_MS, env });
  } catch (thrown) {
    return { exitCode: -1, stdout: "", stderr: (thrown as Error).message };
  }
}
