/** `POST /api/chat`. */
import type { Hono } from "hono";
import { systemClock } from "../../../runtime/clock.ts";
import type { BodyBudget } from "../../body-budget.ts";
import type { AppDeps, AppEnv } from "../../deps.ts";
import { OLLAMA } from "../../dialect.ts";
import { answerInference, readInferenceBody } from "../../inference.ts";
import { toChatRequest } from "../../translate/ollama/engine-requests.ts";
import { CHAT_SHAPE, ollamaGeneration, ollamaLoaded } from "../../translate/ollama/generation.ts";
import { toSettings } from "../../translate/ollama/options.ts";
import { OllamaChatRequest } from "../../translate/ollama/requests.ts";
import { requireAbility } from "./ability.ts";
import { loadOrUnload } from "./load.ts";
import { requireName } from "./requests.ts";

export function addChatRoutes(app: Hono<AppEnv>, deps: AppDeps, bodies: BodyBudget): void {
  const { clock = systemClock } = deps;
  app.post("/api/chat", async (c) => {
    using held = await readInferenceBody(c.req.raw, { schema: OllamaChatRequest, bodies });
    const { value: input, bytes } = held;
    const modelName = requireName(input);
    const settings = toSettings(input, c.req.raw.headers);
    if (!input.messages?.length) {
      const reason = await loadOrUnload({ c, deps }, { modelName, mode: "completion", settings });
      return c.json(ollamaLoaded({ modelName, shape: CHAT_SHAPE, clock }, reason));
    }
    if (input.think) await requireAbility({ c, deps }, modelName, "thinking");
    const { enginePath, body, read } = toChatRequest(input, modelName);
    const route = { enginePath, mode: "completion", dialect: OLLAMA } as const;
    const hidesThinking = input.think === false;
    const translation = ollamaGeneration({
      modelName,
      read,
      shape: CHAT_SHAPE,
      clock,
      hidesThinking,
    });
    const isStream = input.stream !== false;
    const request = { modelName, settings, body, bytes, isStream, translation, held: held.keep() };
    return await answerInference({ c, deps, route }, request);
  });
}
