/** Anthropic's list of models, under its own prefix alone: `/v1/models` is OpenAI's. */
import type { Hono } from "hono";
import type { Model } from "../../api/models.ts";
import type { AppDeps, AppEnv } from "../deps.ts";

/** @see https://docs.anthropic.com/en/api/models-list */
export interface AnthropicModel {
  readonly type: "model";
  readonly id: string;
  readonly display_name: string;
  /** RFC 3339. */
  readonly created_at: string;
  /** Tokens, as far as it is known without loading it. */
  readonly max_input_tokens: number | null;
  readonly max_tokens: number | null;
}

/** All are on the first page. */
export interface AnthropicModelPage {
  readonly data: readonly AnthropicModel[];
  readonly first_id: string | null;
  readonly last_id: string | null;
  readonly has_more: false;
}

const PATH = "/anthropic/v1/models";

export function addAnthropicModelRoutes(app: Hono<AppEnv>, deps: AppDeps): void {
  app.get(PATH, async (c) => {
    const data = (await deps.listModels()).map(toAnthropicModel);
    const [first_id, last_id] = [data[0]?.id ?? null, data.at(-1)?.id ?? null];
    return c.json<AnthropicModelPage>({ data, first_id, last_id, has_more: false });
  });
  app.get(`${PATH}/:name{.+}`, async (c) =>
    c.json<AnthropicModel>(toAnthropicModel(await deps.inspectModel(c.req.param("name")))),
  );
}

// --- internal ---

function toAnthropicModel({ id, tags, created, config }: Model): AnthropicModel {
  const name = tags[0] ?? id;
  return {
    type: "model",
    id: name,
    display_name: name,
    created_at: new Date(created * 1000).toISOString(),
    max_input_tokens: config.context_size,
    max_tokens: config.context_size,
  };
}
