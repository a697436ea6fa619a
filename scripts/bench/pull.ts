/**
 * Pulling: against curl and skopeo from the same registry on loopback, and over a slow line with eight connections and with
 * one. In turns, so that a busy moment hits all.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startThrottle } from "../../test/fakes/throttle.ts";
import { type DockerRegistry, startDockerRegistry } from "../../test/helpers/docker-registry.ts";
import { skopeo } from "../../test/helpers/skopeo.ts";
import { BINARY } from "../compile/freshness.ts";
import { type LargeFile, seedModel, writeLargeGguf } from "./large-model.ts";
import type { BenchResult } from "./report.ts";
import { median } from "./median.ts";
import { type Timed, timedCommand, times, timingRow } from "./timed-command.ts";

const ROUNDS = 3;
const LARGE_BYTES = 2 * 1024 ** 3;
const CURL_RATIO = 0.9;
const SKOPEO_RATIO = 2;
const MEMORY_LIMIT = 150_000_000;

/** A line on which one connection is slow and many are not: each has its rate, and every answer comes late. */
const LINE = { latencyMs: 50, bytesPerSecond: 20_000_000 };
const LINE_BYTES = 512 * 1024 ** 2;
const LINE_ROUNDS = 3;
const CONNECTIONS_RATIO = 4;

export async function benchPull(): Promise<BenchResult> {
  if (skopeo === null) throw new Error("the pull benchmark needs skopeo");
  const directory = await mkdtemp(join(tmpdir(), "tug-bench-"));
  try {
    await using registry = await startDockerRegistry();
    const large = await seed(registry, directory, LARGE_BYTES);
    const rates = await compare(registry, directory, large);
    const line = await compareConnections(registry, directory);
    return toResult(rates, line);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

// --- internal ---

interface Sample {
  readonly tug: Timed;
  readonly curl: Timed;
  /** What Tug does beside fetching, done with other programs: the digest, and the bytes on the disk. */
  readonly checked: Timed;
  readonly skopeo: Timed;
}

interface LineSample {
  readonly eight: Timed;
  readonly one: Timed;
}

async function seed(registry: DockerRegistry, directory: string, size: number): Promise<LargeFile> {
  const path = join(directory, `${size}.gguf`);
  const file = await writeLargeGguf(path, size);
  await seedModel(registry.url, `bench/m${size}`, file);
  await rm(path);
  return file;
}

async function compare(
  registry: DockerRegistry,
  directory: string,
  { digest, size }: LargeFile,
): Promise<Sample[]> {
  const name = `${registry.host}/bench/m${size}`;
  const target = join(directory, "target");
  const fresh = async (run: () => Promise<Timed>): Promise<Timed> => {
    // What the run before left to be written must not slow the next one down.
    await timedCommand(["sync"]);
    const timed = await run();
    await rm(target, { recursive: true, force: true });
    return timed;
  };
  const samples: Sample[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const tug = await fresh(() => pull(`${name}:1`, target));
    const url = `${registry.url}/v2/bench/m${size}/blobs/${digest}`;
    const curl = await fresh(() => timedCommand(["curl", "-fsS", "-o", target, url]));
    const steps = `curl -fsS -o "$0" "$1" && openssl dgst -sha256 "$0" && sync "$0"`;
    const checked = await fresh(() => timedCommand(["sh", "-c", steps, target, url]));
    const from = ["copy", "--src-tls-verify=false", `docker://${name}:1`];
    const copied = await fresh(() => timedCommand([skopeo ?? "", ...from, `dir:${target}`]));
    samples.push({ tug, curl, checked, skopeo: copied });
  }
  return samples;
}

async function compareConnections(
  registry: DockerRegistry,
  directory: string,
): Promise<LineSample[]> {
  await seed(registry, directory, LINE_BYTES);
  await using line = await startThrottle({ ...LINE, targetPort: registry.port });
  const name = `localhost:${line.port}/bench/m${LINE_BYTES}:1`;
  const target = join(directory, "target");
  const samples: LineSample[] = [];
  for (let round = 0; round < LINE_ROUNDS; round += 1) {
    const eight = await pull(name, target, "--connections", "8");
    await rm(target, { recursive: true, force: true });
    const one = await pull(name, target, "--connections", "1");
    await rm(target, { recursive: true, force: true });
    samples.push({ eight, one });
  }
  return samples;
}

function pull(name: string, home: string, ...flags: readonly string[]): Promise<Timed> {
  return timedCommand([BINARY, "pull", name, "--quiet", ...flags], {
    env: { ...process.env, TUG_HOME: home },
  });
}

function toResult(samples: readonly Sample[], line: readonly LineSample[]): BenchResult {
  const ofCurl = median(samples.map(({ tug, curl }) => curl.seconds / tug.seconds));
  const ofChecked = median(samples.map((it) => it.checked.seconds / it.tug.seconds));
  const ofSkopeo = median(samples.map((it) => it.skopeo.seconds / it.tug.seconds));
  const ofOne = median(line.map(({ eight, one }) => one.seconds / eight.seconds));
  const peak = Math.max(...samples.map(({ tug }) => tug.peakBytes));
  return {
    name: "pull",
    title: "Pulling",
    table: [
      ["what", "median time", "peak memory", "Tug's rate to it"],
      timingRow(
        "`tug pull`, 2 GiB, loopback",
        samples.map(({ tug }) => tug),
        "",
      ),
      timingRow(
        "`curl -o`, the same blob, not verified",
        samples.map(({ curl }) => curl),
        times(ofCurl),
      ),
      timingRow(
        "`curl -o`, then `openssl dgst -sha256`, then `sync`",
        samples.map(({ checked }) => checked),
        times(ofChecked),
      ),
      timingRow(
        "`skopeo copy` to a directory",
        samples.map((it) => it.skopeo),
        times(ofSkopeo),
      ),
      timingRow(
        "`tug pull`, 512 MiB, slow line, 8 connections",
        line.map(({ eight }) => eight),
        "",
      ),
      timingRow(
        "the same with 1 connection",
        line.map(({ one }) => one),
        times(ofOne),
      ),
    ],
    bars: [
      { text: `at least ${CURL_RATIO} of curl's rate`, isKept: ofCurl >= CURL_RATIO },
      { text: `at least ${SKOPEO_RATIO} times skopeo's rate`, isKept: ofSkopeo >= SKOPEO_RATIO },
      { text: `at most ${MEMORY_LIMIT / 1e6} MB of memory`, isKept: peak <= MEMORY_LIMIT },
      {
        text: `8 connections on a slow line bring at least ${CONNECTIONS_RATIO} times the rate of one`,
        isKept: ofOne >= CONNECTIONS_RATIO,
      },
    ],
    notes: [
      `Debian's docker-registry; ratios are medians over ${ROUNDS} rounds measured back to back. The slow line holds each ` +
        `answer back for ${LINE.latencyMs} ms and each connection to ${LINE.bytesPerSecond / 1e6} MB/s.`,
    ],
  };
}
