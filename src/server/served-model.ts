/** Engines that know their model by a name of their own: requests are told that one, answers the client's. Pure. */
import type { EngineReport } from "../runtime/backend.ts";
import type { WorkerPlan } from "../runtime/planner.ts";
import type { Translation } from "./translate/translation.ts";

type Body = Readonly<Record<string, unknown>>;

/** The body itself where nothing is to be changed. */
export function toEngineBody(
  body: Body,
  { servedModel, engineFields }: Pick<WorkerPlan, "servedModel" | "engineFields">,
): Body {
  const isNamed = servedModel === undefined || body["model"] === servedModel;
  const named = isNamed ? body : { ...body, model: servedModel };
  if (engineFields === undefined) return named;
  return Object.fromEntries(Object.entries(named).filter(([name]) => engineFields.has(name)));
}

/** What the engine said of itself when it was ready wins: some know only then. */
export function servedModelOf(
  { servedModel }: Pick<WorkerPlan, "servedModel">,
  report: EngineReport | undefined,
): string | undefined {
  const told = report?.["served_model"];
  return servedModel !== undefined && typeof told === "string" && told !== "" ? told : servedModel;
}

/** OpenAI's answers as they are, but for the name. */
export function renamed(model: string): Translation {
  return {
    whole: (answer) => ("model" in answer ? { ...answer, model } : answer),
    stream: {
      push: (chunk) => `data: ${JSON.stringify({ ...chunk, model })}\n\n`,
      end: () => "data: [DONE]\n\n",
      fail: (body) => `data: ${JSON.stringify(body)}\n\n`,
    },
  };
}
