/** `POST /api/generate`. */
import type { Hono } from "hono";
import { systemClock } from "../../../runtime/clock.ts";
import type { BodyBudget } from "../../body-budget.ts";
import type { AppDeps, AppEnv } from "../../deps.ts";
import { OLLAMA } from "../../dialect.ts";
import { answerInference, readInferenceBody } from "../../inference.ts";
import { INFILL_PATH, toGenerateRequest } from "../../translate/ollama/engine-requests.ts";
import {
  GENERATE_SHAPE,
  ollamaGeneration,
  ollamaLoaded,
} from "../../translate/ollama/generation.ts";
import { toSettings } from "../../translate/ollama/options.ts";
import { OllamaGenerateRequest } from "../../translate/ollama/requests.ts";
import { requireAbility, unable } from "./ability.ts";
import { loadOrUnload } from "./load.ts";
import { requireName } from "./requests.ts";

export function addGenerateRoutes(app: Hono<AppEnv>, deps: AppDeps, bodies: BodyBudget): void {
  const { clock = systemClock } = deps;
  app.post("/api/generate", async (c) => {
    using held = await readInferenceBody(c.req.raw, { schema: OllamaGenerateRequest, bodies });
    const { value: input, bytes } = held;
    const modelName = requireName(input);
    const settings = toSettings(input, c.req.raw.headers);
    if (!input.prompt) {
      const reason = await loadOrUnload({ c, deps }, { modelName, mode: "completion", settings });
      return c.json(ollamaLoaded({ modelName, shape: GENERATE_SHAPE, clock }, reason));
    }
    if (input.think) await requireAbility({ c, deps }, modelName, "thinking");
    const { enginePath, body, read } = toGenerateRequest(input, modelName);
    if (enginePath === INFILL_PATH) await requireAbility({ c, deps }, modelName, "insert");
    const route = { enginePath, mode: "completion", dialect: OLLAMA } as const;
    const hidesThinking = input.think === false;
    const translation = ollamaGeneration({
      modelName,
      read,
      shape: GENERATE_SHAPE,
      clock,
      hidesThinking,
    });
    const isStream = input.stream !== false;
    const request = { modelName, settings, body, bytes, isStream, translation, held: held.keep() };
    const response = await answerInference({ c, deps, route }, request);
    if (enginePath === INFILL_PATH && NOT_ABLE.has(response.status))
      throw unable(modelName, "insert");
    return response;
  });
}

// --- internal ---

/** llama-server answers 501 if the model has no tokens for it, other engines have no such route. */
const NOT_ABLE: ReadonlySet<number> = new Set([404, 501]);
