/** Packaging straight into a registry, against `curl -T` of the same file into an upload of the same registry. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { certificates } from "../../test/helpers/certificates.ts";
import { startDockerRegistry } from "../../test/helpers/docker-registry.ts";
import { BINARY } from "../compile/freshness.ts";
import { beginUpload, type LargeFile, writeLargeGguf } from "./large-model.ts";
import type { BenchResult } from "./report.ts";
import { median } from "./median.ts";
import { type Timed, timedCommand, times, timingRow } from "./timed-command.ts";

const ROUNDS = 3;
const LARGE_BYTES = 2 * 1024 ** 3;
/** It also has to hash the file before it can name it, which curl is spared. */
const CURL_RATIO = 0.9;
const MEMORY_LIMIT = 120_000_000;

export async function benchPush(): Promise<BenchResult> {
  const directory = await mkdtemp(join(tmpdir(), "tug-bench-"));
  try {
    const file = await writeLargeGguf(join(directory, "large.gguf"), LARGE_BYTES);
    const http = await compare(file, { directory, tls: false });
    const https = await compare(file, { directory, tls: true });
    return toResult(http, https);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

// --- internal ---

interface Sample {
  readonly tug: Timed;
  readonly curl: Timed;
}

async function compare(
  file: LargeFile,
  { directory, tls }: { directory: string; tls: boolean },
): Promise<Sample[]> {
  const { caFile } = await certificates();
  const env = { ...process.env, TUG_HOME: join(directory, "home"), TUG_CA_BUNDLE: caFile };
  const samples: Sample[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    // A new one each time: nothing is there already, and its disk does not fill up.
    await using registry = await startDockerRegistry({ tls });
    await timedCommand(["sync"]);
    const target = `${registry.host}/bench/tug:1`;
    const tug = await timedCommand([BINARY, "package", "--gguf", file.path, "--push", target], {
      env,
    });
    await timedCommand(["sync"]);
    const upload = await beginUpload(registry.url, "bench/curl", file.digest);
    const put = ["curl", "-fsS", "--cacert", caFile, "-T", file.path, upload];
    samples.push({ tug, curl: await timedCommand(put) });
  }
  return samples;
}

function toResult(http: readonly Sample[], https: readonly Sample[]): BenchResult {
  const ratio = (samples: readonly Sample[]): number =>
    median(samples.map(({ tug, curl }) => curl.seconds / tug.seconds));
  const rows = (scheme: string, samples: readonly Sample[]): string[][] => [
    timingRow(
      `\`tug package --push\`, 2 GiB, ${scheme}`,
      samples.map(({ tug }) => tug),
      "",
    ),
    timingRow(
      `\`curl -T\`, ${scheme}`,
      samples.map(({ curl }) => curl),
      times(ratio(samples)),
    ),
  ];
  const peak = Math.max(...[...http, ...https].map(({ tug }) => tug.peakBytes));
  return {
    name: "push",
    title: "Packaging and pushing",
    table: [
      ["what", "median time", "peak memory", "Tug's rate to it"],
      ...rows("http", http),
      ...rows("https", https),
    ],
    bars: [
      { text: `http: at least ${CURL_RATIO} of curl's rate`, isKept: ratio(http) >= CURL_RATIO },
      { text: `https: at least ${CURL_RATIO} of curl's rate`, isKept: ratio(https) >= CURL_RATIO },
      { text: `at most ${MEMORY_LIMIT / 1e6} MB of memory`, isKept: peak <= MEMORY_LIMIT },
    ],
    notes: [
      "Tug reads the file twice: a digest names the blob before it is sent. curl is given the digest.",
    ],
  };
}
