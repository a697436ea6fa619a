/** Plans without a planner. */
import type { RunnableModel } from "../../src/runtime/backend.ts";
import type { WorkerPlan } from "../../src/runtime/planner.ts";
import { fakeModel } from "./backend.ts";

export interface FakePlan extends Partial<Omit<WorkerPlan, "model">> {
  readonly model: string | RunnableModel;
  /** Switches of the fake engine. */
  readonly flags?: readonly string[];
}

export function fakePlan({ model, flags = [], ...plan }: FakePlan): WorkerPlan {
  return {
    model: typeof model === "string" ? fakeModel(model) : model,
    backend: "fake",
    mode: "completion",
    settings: { runtimeFlags: flags },
    demand: { ram: 1000 },
    ledgerKey: undefined,
    keepAliveMs: 300_000,
    pinned: false,
    defaults: { parameters: {} },
    explained: [],
    ...plan,
  };
}
