/** A planner for a machine of 64 GiB with llama.cpp on it, and models of any shape. */
import { llamacpp } from "../../backends/llamacpp/index.ts";
import type { Installation, RunnableModel } from "../../src/runtime/backend.ts";
import type { Demand } from "../../src/runtime/demand.ts";
import type { Device } from "../../src/runtime/hardware/devices.ts";
import { SAFE_SHARE, toWholeBudget } from "../../src/runtime/budget.ts";
import type { PlannerDeps } from "../../src/runtime/planner.ts";
import { Ledger } from "../../src/state/ledger.ts";
import { StateDatabase } from "../../src/state/database.ts";
import { StoredSettings } from "../../src/state/model-settings.ts";
import type { ModelShape } from "../../src/store/model-shape.ts";

export const GIB = 1024 ** 3;

export const RAM: Device = {
  id: "ram",
  kind: "ram",
  name: null,
  totalBytes: 64 * GIB,
  freeBytes: 60 * GIB,
};

export const ENGINE: Installation = {
  backend: "llama.cpp",
  version: "1",
  variant: "cpu",
  source: "apt",
  directory: "/engines/1",
  command: ["/engines/1/llama-server"],
  installedAt: "2026-01-01T00:00:00Z",
};

/** Half a megabyte of cache a token: 8 layers, 128 heads of 128, F16. */
export function fakeShape(overrides: Partial<ModelShape> = {}): ModelShape {
  const layer = { kind: "attention", keyElements: 16_384, valueElements: 16_384 } as const;
  return {
    architecture: "llama",
    weightBytes: 4 * GIB,
    inputBytes: GIB / 4,
    bytesByType: { F16: 4 * GIB },
    layers: Array.from({ length: 8 }, () => layer),
    embeddingLength: 4096,
    feedForwardLength: 11_008,
    headCount: 128,
    vocabularySize: 32_000,
    expertCount: 0,
    expertUsedCount: 0,
    contextTokens: 131_072,
    isPooled: false,
    ...overrides,
  };
}

export interface ShapedModel extends RunnableModel {
  /** How often its header was read. */
  readonly reads: number;
}

/** @param options.shape null: nobody can read it */
export function shapedModel(
  name: string,
  options: Partial<RunnableModel> & { readonly shape?: Partial<ModelShape> | null } = {},
): ShapedModel {
  const { shape, ...rest } = options;
  let reads = 0;
  return {
    id: `sha256:${Bun.SHA256.hash(name, "hex")}`,
    name,
    format: "gguf",
    weightBytes: 4 * GIB,
    get reads() {
      return reads;
    },
    readShape: () => {
      reads += 1;
      if (shape === null) return Promise.reject(new Error("it is cut off"));
      return Promise.resolve(fakeShape(shape));
    },
    openBundle: () =>
      Promise.resolve({
        directory: "/b",
        format: "gguf",
        model: `/b/${name}.gguf`,
        weightBytes: 4 * GIB,
        [Symbol.asyncDispose]: () => Promise.resolve(),
      }),
    ...rest,
  };
}

export interface FakePlannerDeps extends PlannerDeps {
  readonly stored: StoredSettings;
  readonly ledger: Ledger;
  /** What other programs leave; undefined: all. */
  budget: Demand | undefined;
  engine: Installation | undefined;
  stamp: string;
}

export function fakePlannerDeps(
  directory: string,
  {
    models = [],
    ...overrides
  }: Partial<Omit<PlannerDeps, "models">> & {
    readonly models?: readonly RunnableModel[];
    readonly tables?: PlannerDeps["models"];
  } = {},
): FakePlannerDeps {
  const state = new StateDatabase(`${directory}/tug.db`);
  const { tables = {}, ...rest } = overrides;
  const deps: FakePlannerDeps = {
    backends: [llamacpp],
    activeEngine: () => Promise.resolve(deps.engine),
    engineStamp: () => deps.stamp,
    config: {
      contextSize: { value: 0, source: "default" },
      keepAliveMs: { value: 300_000, source: "default" },
    },
    models: tables,
    stored: new StoredSettings(state),
    ledger: new Ledger(state),
    readDevices: () => Promise.resolve([RAM]),
    toWholeBudget: (devices) => toWholeBudget(devices, SAFE_SHARE),
    readBudget: () => Promise.resolve(deps.budget),
    loading: () => Promise.resolve({ isMapped: false }),
    resolve: (name) => {
      const found = models.find((model) => model.name === name);
      return found === undefined
        ? Promise.reject(new Error(`there is no ${name}`))
        : Promise.resolve(found);
    },
    budget: undefined,
    engine: ENGINE,
    stamp: "",
    ...(rest as object),
  };
  return deps;
}
