/** A stand-in for what reaches beyond the machine: remembers what it was asked, and answers something of the right shape. */
import type { PullResult, PushResult } from "../../src/api/models.ts";
import { AppError } from "../../src/errors.ts";
import type { Distribution } from "../../src/server/deps.ts";

const DIGEST = `sha256:${"b".repeat(64)}`;

export const PULLED: PullResult = {
  reference: "docker.io/ai/smollm2:latest",
  id: DIGEST,
  size_bytes: 10,
  fetched_bytes: 10,
  up_to_date: false,
};

export const PUSHED: PushResult = {
  reference: "localhost:5000/me/m:v1",
  digest: DIGEST,
  size_bytes: 10,
  uploaded_bytes: 7,
  reused_bytes: 3,
};

export interface FakeDistribution extends Distribution {
  /** Name of the call and what it was given, without its options. */
  readonly calls: readonly (readonly [string, unknown])[];
}

/** @param overrides calls that behave otherwise; they are remembered all the same */
export function fakeDistribution(overrides: Partial<Distribution> = {}): FakeDistribution {
  const calls: [string, unknown][] = [];
  const answers: Distribution = {
    pull: (_, { onProgress }) => {
      const bytes = { done_bytes: 5, total_bytes: 10 };
      onProgress({ type: "progress", id: DIGEST, phase: "downloading", ...bytes });
      return Promise.resolve(PULLED);
    },
    push: () => Promise.resolve(PUSHED),
    copy: () => Promise.resolve(PUSHED),
    adopt: () => Promise.resolve({ files: [], bytes: 0 }),
    search: () => Promise.resolve([]),
    inspect: (name) =>
      Promise.reject(new AppError("not_found", `cannot find \`${name}\`: no such model`)),
    login: ({ registry, username }) => Promise.resolve({ registry, username, kept_in: "a file" }),
    logout: (registry) => Promise.resolve({ registry, removed_from: null, remains_in: null }),
    ...overrides,
  };
  const recorded = Object.entries(answers).map(([name, answer]) => [
    name,
    (request: unknown, options: unknown) => {
      calls.push([name, request]);
      return (answer as (request: unknown, options: unknown) => unknown)(request, options);
    },
  ]);
  return { ...(Object.fromEntries(recorded) as Distribution), calls };
}
