/**
 * Ollama's API.
 *
 * @see https://github.com/ollama/ollama/blob/main/docs/api.md
 */
import { Hono } from "hono";
import { toAppError } from "../../../errors.ts";
import type { Planner, PlanRequest, WorkerPlan } from "../../../runtime/planner.ts";
import { BodyBudget } from "../../body-budget.ts";
import type { AppDeps, AppEnv } from "../../deps.ts";
import { addChatRoutes } from "./chat.ts";
import { addEmbedRoutes } from "./embed.ts";
import { addGenerateRoutes } from "./generate.ts";
import { addOllamaModelRoutes } from "./models.ts";
import { resolveOllamaName } from "./names.ts";

export function ollamaRoutes(deps: AppDeps): Hono<AppEnv> {
  const app = new Hono<AppEnv>();
  const { bodies = new BodyBudget() } = deps;
  const inference = inOllamasWords(deps);
  addChatRoutes(app, inference, bodies);
  addGenerateRoutes(app, inference, bodies);
  addEmbedRoutes(app, inference, bodies);
  addOllamaModelRoutes(app, deps);
  return app;
}

// --- internal ---

/** A name, and a context, mean the same on all of Ollama's routes. */
function inOllamasWords(deps: AppDeps): AppDeps {
  return {
    ...deps,
    planner: async () => {
      const planner = await deps.planner();
      return { plan: (request) => planWithin(planner, request) };
    },
    resolve: (name, options) => resolveOllamaName(name, (each) => deps.resolve(each, options)),
  };
}

/** Clients send a context unasked that many models do not have: as in Ollama, they get what there is. */
async function planWithin(planner: Pick<Planner, "plan">, asked: PlanRequest): Promise<WorkerPlan> {
  try {
    return await planner.plan(asked);
  } catch (thrown) {
    const trained = toAppError(thrown).details?.["trained_context"];
    if (typeof trained !== "number" || asked.request?.context_size === undefined) throw thrown;
    return planner.plan({ ...asked, request: { ...asked.request, context_size: trained } });
  }
}
