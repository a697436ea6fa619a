/**
 * Anthropic's Messages API, translated to the engine's chat completions. Its headers `anthropic-version` and
 * `anthropic-beta` are not asked for: one shape serves all versions.
 */
import { type Context, Hono } from "hono";
import { AppError, toAppError } from "../../errors.ts";
import type { BodyBudget } from "../body-budget.ts";
import { countTokens } from "../count-tokens.ts";
import type { AppDeps, AppEnv } from "../deps.ts";
import { ANTHROPIC } from "../dialect.ts";
import { answerInference, readInferenceBody } from "../inference.ts";
import { CountTokensRequest, MessagesRequest } from "../translate/anthropic/request.ts";
import { toConversation } from "../translate/anthropic/to-chat.ts";
import { translateMessages } from "../translate/anthropic/translation.ts";
import { toRequestSettings } from "../worker-request.ts";
import { addAnthropicModelRoutes } from "./anthropic-models.ts";
import { bodiesOf, engineOf } from "./engine-paths.ts";

export const PATHS = [
  "/v1/messages",
  "/anthropic/v1/messages",
  "/engines/v1/messages",
  "/engines/:engine/v1/messages",
] as const;

/** What is shown of a client's name of a model. Characters. */
const MAX_SHOWN = 80;

export function anthropicRoutes(deps: AppDeps): Hono<AppEnv> {
  const app = new Hono<AppEnv>();
  const context = { deps, bodies: bodiesOf(deps) };
  for (const path of PATHS) {
    app.post(path, (c) => answerMessages(c, context));
    app.post(`${path}/count_tokens`, (c) => answerCount(c, context));
  }
  addAnthropicModelRoutes(app, deps);
  return app;
}

// --- internal ---

interface RouteContext {
  readonly deps: AppDeps;
  readonly bodies: BodyBudget;
}

async function answerMessages(
  c: Context<AppEnv>,
  { deps, bodies }: RouteContext,
): Promise<Response> {
  const backend = await engineOf(c);
  using held = await readInferenceBody(c.req.raw, { schema: MessagesRequest, bodies });
  const { value, bytes } = held;
  const { headers } = c.req.raw;
  const betas = headers.get("anthropic-beta") ?? undefined;
  const { body, translation } = translateMessages(value, { betas });
  const route = {
    enginePath: "/v1/chat/completions",
    mode: "completion" as const,
    dialect: ANTHROPIC,
    backend,
  };
  const request = {
    modelName: value.model,
    settings: toRequestSettings(value, headers),
    body,
    bytes,
    isStream: value.stream === true,
    translation,
    held: held.keep(),
  };
  return await withAliasHint(value.model, () => answerInference({ c, deps, route }, request));
}

async function answerCount(c: Context<AppEnv>, { deps, bodies }: RouteContext): Promise<Response> {
  const backend = await engineOf(c);
  using held = await readInferenceBody(c.req.raw, { schema: CountTokensRequest, bodies });
  const { value, bytes } = held;
  const request = {
    modelName: value.model,
    settings: toRequestSettings(value, c.req.raw.headers),
    body: toConversation(value),
    bytes,
    held: held.keep(),
    toBody: (input_tokens: number) => ({ input_tokens }),
  };
  const context = { c, deps, dialect: ANTHROPIC, backend };
  return await withAliasHint(value.model, () => countTokens(context, request));
}

/** Clients of this API ask for hosted models, and many cannot be told another name. */
async function withAliasHint(name: string, answer: () => Promise<Response>): Promise<Response> {
  try {
    return await answer();
  } catch (thrown) {
    const error = toAppError(thrown);
    const { code, message, hint, details } = error;
    if (code !== "model_not_found" && code !== "invalid_reference") throw error;
    const line = `"${name.slice(0, MAX_SHOWN)}" = "MODEL"`;
    const advice = `To serve a model of your own by this name, write \`${line}\` under \`[aliases]\` in config.toml.`;
    throw new AppError(code, message, {
      hint: hint === undefined ? advice : `${hint} ${advice}`,
      details,
      cause: thrown,
    });
  }
}
