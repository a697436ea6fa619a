/** From the schemas that check requests to those that describe them (JSON Schema 2020-12, as OpenAPI 3.1 has it). */
import { type ConversionConfig, type JsonSchema, toJsonSchemaDefs } from "@valibot/to-json-schema";
import type { GenericSchema } from "valibot";
import { PARTS, REQUESTS } from "./requests.ts";

/** Where they are in the document. */
export const SCHEMAS_AT = "#/components/schemas/";

/** @returns a schema a name; of one another they say `$ref` */
export function requestSchemas(): Record<string, unknown> {
  const schemas: Record<string, GenericSchema> = { ...PARTS, ...REQUESTS };
  return toJsonSchemaDefs(schemas, CONVERSION);
}

// --- internal ---

type PipeAction = Parameters<NonNullable<ConversionConfig["overrideAction"]>>[0]["valibotAction"];

const CONVERSION: ConversionConfig = {
  target: "draft-2020-12",
  // What clients send: with fields left out that have a default.
  typeMode: "input",
  overrideRef: ({ referenceId }) => `${SCHEMAS_AT}${referenceId}`,
  overrideAction: ({ valibotAction, jsonSchema }) => relax(valibotAction, jsonSchema),
};

/** What JSON Schema says in other words, or cannot say: then the description has to do. */
function relax(action: PipeAction, schema: JsonSchema): JsonSchema | undefined {
  // Of a text or a list: each keyword is about one of the two.
  if (action.type === "non_empty" && schema.type === undefined) {
    return { ...schema, minLength: 1, minItems: 1 };
  }
  const hasFlags =
    action.type === "regex" && (action as { requirement?: RegExp }).requirement?.flags;
  return hasFlags ? schema : undefined;
}
