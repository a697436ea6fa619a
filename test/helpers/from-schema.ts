/** Values that a JSON Schema describes, as far as the schemas of our description go. For fast-check. */
import * as fc from "fast-check";

export interface JsonSchema {
  readonly $ref?: string;
  readonly type?: string | readonly string[];
  readonly const?: unknown;
  readonly enum?: readonly unknown[];
  readonly anyOf?: readonly JsonSchema[];
  readonly oneOf?: readonly JsonSchema[];
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly required?: readonly string[];
  readonly additionalProperties?: JsonSchema | boolean;
  readonly items?: JsonSchema;
  readonly minItems?: number;
  readonly maxItems?: number;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly pattern?: string;
}

export type Components = Readonly<Record<string, JsonSchema>>;

/** Lists and nesting stay small: what is wanted is variety. */
const MAX_ITEMS = 3;
const MAX_DEPTH = 6;

/** @throws for a keyword that it does not know how to satisfy */
export function valuesOf(
  schema: JsonSchema,
  components: Components,
  depth = 0,
): fc.Arbitrary<unknown> {
  const inner = (part: JsonSchema): fc.Arbitrary<unknown> => valuesOf(part, components, depth + 1);
  if (schema.$ref !== undefined) return inner(resolve(schema.$ref, components));
  if ("const" in schema) return fc.constant(schema.const);
  if (schema.enum !== undefined) return fc.constantFrom(...schema.enum);
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices !== undefined) {
    const one = fc.oneof(...choices.map(inner));
    return schema.minItems === undefined ? one : one.filter(isNotEmpty);
  }
  switch (schema.type) {
    case "string":
      return textOf(schema);
    case "integer":
      return fc.integer({
        min: schema.minimum ?? -1000,
        max: Math.min(schema.maximum ?? 1e6, 1e9),
      });
    case "number":
      return fc.double({ min: schema.minimum ?? -1e6, max: schema.maximum ?? 1e6, noNaN: true });
    case "boolean":
      return fc.boolean();
    case "null":
      return fc.constant(null);
    case "array":
      return listOf(schema, depth > MAX_DEPTH, inner);
    case "object":
      return objectOf(schema, inner);
    case undefined:
      return fc.jsonValue({ maxDepth: 2 });
    default:
      throw new Error(`no values for ${JSON.stringify(schema).slice(0, 200)}`);
  }
}

// --- internal ---

function resolve(ref: string, components: Components): JsonSchema {
  const found = components[ref.slice(ref.lastIndexOf("/") + 1)];
  if (found === undefined) throw new Error(`${ref} is nowhere`);
  return found;
}

function isNotEmpty(value: unknown): boolean {
  return (value as { length?: number }).length !== 0;
}

function textOf({ pattern, minLength = 0, maxLength }: JsonSchema): fc.Arbitrary<string> {
  // By themselves most random texts would fit no pattern.
  if (pattern !== undefined) return fc.stringMatching(new RegExp(pattern, "u"));
  const max = Math.min(maxLength ?? 40, 40);
  return fc.string({ unit: "grapheme", minLength, maxLength: Math.max(max, minLength) });
}

function listOf(
  { items = {}, minItems = 0, maxItems = MAX_ITEMS }: JsonSchema,
  isDeep: boolean,
  inner: (part: JsonSchema) => fc.Arbitrary<unknown>,
): fc.Arbitrary<unknown> {
  if (isDeep && minItems === 0) return fc.constant([]);
  const maxLength = Math.max(minItems, Math.min(maxItems, MAX_ITEMS));
  return fc.array(inner(items), { minLength: minItems, maxLength });
}

function objectOf(
  { properties = {}, required = [], additionalProperties }: JsonSchema,
  inner: (part: JsonSchema) => fc.Arbitrary<unknown>,
): fc.Arbitrary<unknown> {
  const named = fc.record(
    Object.fromEntries(Object.entries(properties).map(([name, part]) => [name, inner(part)])),
    { requiredKeys: [...required] },
  );
  if (typeof additionalProperties !== "object") return named;
  return fc
    .tuple(fc.dictionary(fc.string(), inner(additionalProperties), { maxKeys: MAX_ITEMS }), named)
    .map(([others, own]) => ({ ...others, ...own }));
}
