/**
 * `bun run verify`: everything that must hold before a change goes in, from a clean checkout. The last line printed is
 * `N passed, N failed, N skipped`; the exit code is 1 if anything failed.
 *
 * Built-ins only: it runs where node_modules may be absent, and installs what the tests need.
 */
import { mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { ROOT } from "./compile/freshness.ts";
import { findShortfalls, gatedFiles, parseLcov, REQUIRED_PERCENT } from "./verify/coverage.ts";
import { add, type Counts, failedNames, NO_COUNTS, parseCounts } from "./verify/junit.ts";

const REPORTS = join(ROOT, "coverage");
/** A whole run stays under 15 minutes; what hangs is ended and counts as failed. */
const STEP_LIMIT_MS = 120_000;
const TESTS_LIMIT_MS = 540_000;
/** Programs that tests use, with their Debian packages. Tests of what is missing skip, and say so in their names. */
const TOOLS = [
  { command: "skopeo", package: "skopeo" },
  { command: "docker-registry", package: "docker-registry" },
  { command: "htpasswd", package: "apache2-utils" },
  { command: "strace", package: "strace" },
  { command: "openssl", package: "openssl" },
  { command: "bwrap", package: "bubblewrap" },
  { command: "python3", package: "python3" },
  { command: "podman", package: "podman" },
  // Podman's other runtime refuses machines whose control groups are of both versions.
  { command: "runc", package: "runc" },
  // Some 70 packages, fetched and unpacked in half a minute.
  { command: "chromium", package: "chromium" },
];

const PASSED: Counts = { passed: 1, failed: 0, skipped: 0 };
const FAILED: Counts = { passed: 0, failed: 1, skipped: 0 };

interface Step {
  readonly name: string;
  run(): Promise<Counts>;
}

const STEPS: readonly Step[] = [
  command("install", ["install", "--frozen-lockfile"]),
  command("format", ["run", "format"]),
  command("lint", ["run", "lint"]),
  command("typecheck", ["run", "typecheck"]),
  command("unused", ["run", "unused"]),
  { name: "unit tests", run: runUnitTests },
  { name: "coverage", run: checkCoverage },
  command("compile", [join(ROOT, "scripts", "compile", "index.ts")]),
  { name: "e2e tests", run: runE2eTests },
];

const failures: string[] = [];

if (import.meta.main) process.exitCode = await verify();

// --- internal ---

/** @returns the exit code */
async function verify(): Promise<number> {
  let total = NO_COUNTS;
  await checkBunVersion();
  await rm(REPORTS, { recursive: true, force: true });
  await mkdir(REPORTS, { recursive: true });
  await installTools();
  for (const step of STEPS) {
    const startedAt = performance.now();
    console.log(`\n== ${step.name}`);
    const counts = await step.run();
    total = add(total, counts);
    const seconds = ((performance.now() - startedAt) / 1000).toFixed(1);
    console.log(`== ${step.name}: ${counts.failed === 0 ? "ok" : "failed"} (${seconds} s)`);
  }
  if (failures.length > 0) console.log(`\nFailed:\n${failures.map((it) => `  ${it}\n`).join("")}`);
  console.log(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
  return total.failed === 0 ? 0 : 1;
}

async function checkBunVersion(): Promise<void> {
  const facts = (await Bun.file(join(ROOT, "package.json")).json()) as { engines: { bun: string } };
  if (Bun.version === facts.engines.bun) return;
  console.error(
    `error: this is Bun ${Bun.version}: run \`npx -y bun@${facts.engines.bun} run verify\``,
  );
  process.exit(1);
}

/** Only where it needs no password; elsewhere the tests that need them skip. */
async function installTools(): Promise<void> {
  const missing = TOOLS.filter((tool) => Bun.which(tool.command) === null);
  if (missing.length === 0 || Bun.which("apt-get") === null) return;
  const packages = missing.map((tool) => tool.package);
  const isRoot = process.getuid?.() === 0;
  const sudo = isRoot ? [] : ["sudo", "-n"];
  if (!isRoot && Bun.which("sudo") === null) return;
  const quiet = { limitMs: STEP_LIMIT_MS, quiet: true };
  const install = async (names: readonly string[]): Promise<boolean> => {
    const words = ["apt-get", "install", "-y", "--no-install-recommends", ...names];
    return (await spawn([...sudo, ...words], quiet)) === 0;
  };
  console.log(`\n== tools: ${packages.join(" ")}`);
  if (await install(packages)) return;
  await spawn([...sudo, "apt-get", "update"], quiet);
  // One by one: a distribution that lacks one of them has the others.
  for (const name of packages) {
    if (await install([name])) continue;
    console.log(`could not be installed: ${name}; the tests that need it skip`);
  }
}

/** A step that is one invocation of the Bun that runs this, whatever `bun` on PATH is. */
function command(name: string, args: readonly string[]): Step {
  return {
    name,
    async run() {
      const exitCode = await spawn([process.execPath, ...args], { limitMs: STEP_LIMIT_MS });
      if (exitCode === 0) return PASSED;
      failures.push(name);
      return FAILED;
    },
  };
}

function runUnitTests(): Promise<Counts> {
  const args = ["--parallel=2", "--path-ignore-patterns", "test/e2e/**"];
  const coverage = ["--coverage", "--coverage-reporter=lcov", `--coverage-dir=${REPORTS}`];
  return runTests("unit", [...args, ...coverage]);
}

async function runE2eTests(): Promise<Counts> {
  // The engine that the tests share is installed once a run, so that installing is tested too.
  await rm(join(ROOT, "dist", "test-home"), { recursive: true, force: true });
  return runTests("e2e", ["./test/e2e", "--timeout=60000"]);
}

/** @param name of the report, too */
async function runTests(name: string, args: readonly string[]): Promise<Counts> {
  const report = join(REPORTS, `${name}.xml`);
  const exitCode = await spawn(
    [
      process.execPath,
      "test",
      ...args,
      "--only-failures",
      "--reporter=junit",
      `--reporter-outfile=${report}`,
    ],
    { limitMs: TESTS_LIMIT_MS },
  );
  const xml = await readFile(report, "utf8").catch(() => "");
  const counts = parseCounts(xml) ?? NO_COUNTS;
  failures.push(...failedNames(xml));
  const isExplained = exitCode === 0 ? counts.passed > 0 : counts.failed > 0;
  if (isExplained) return counts;
  // A file that does not load, an error between tests, a run that was cut off, or one that ran nothing.
  failures.push(`${name} tests: left with ${exitCode}, and no test says why`);
  return add(counts, FAILED);
}

async function checkCoverage(): Promise<Counts> {
  const lcov = await readFile(join(REPORTS, "lcov.info"), "utf8").catch(() => "");
  const files = await gatedFiles(ROOT);
  const shortfalls = findShortfalls(files, parseLcov(lcov));
  for (const { file, percent } of shortfalls) {
    const found = percent === null ? "no test loads it" : `${percent.toFixed(1)} % of lines`;
    const message = `coverage: ${file}: ${found}, not ${REQUIRED_PERCENT} %`;
    console.log(message);
    failures.push(message);
  }
  if (shortfalls.length > 0) return { ...FAILED, failed: shortfalls.length };
  console.log(`${files.length} files have at least ${REQUIRED_PERCENT} % of their lines covered`);
  return PASSED;
}

interface SpawnOptions {
  /** Milliseconds until it is killed. */
  readonly limitMs: number;
  readonly quiet?: boolean;
}

async function spawn(
  words: readonly string[],
  { limitMs, quiet = false }: SpawnOptions,
): Promise<number> {
  const output = quiet ? "ignore" : "inherit";
  // A group of its own: what hangs is ended with everything it started.
  const child = Bun.spawn([...words], {
    cwd: ROOT,
    stdio: ["ignore", output, output],
    detached: process.platform !== "win32",
  });
  const timer = setTimeout(() => {
    console.log(`ended after ${limitMs / 1000} s: ${words.join(" ")}`);
    killGroup(child.pid);
  }, limitMs);
  const interrupt = (): void => {
    killGroup(child.pid);
    process.exit(130);
  };
  process.once("SIGINT", interrupt);
  try {
    return await child.exited;
  } finally {
    clearTimeout(timer);
    process.off("SIGINT", interrupt);
  }
}

function killGroup(pid: number): void {
  try {
    process.kill(process.platform === "win32" ? pid : -pid, "SIGKILL");
  } catch {
    // It has just ended by itself.
  }
}
