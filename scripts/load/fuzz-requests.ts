/** Requests as no client sends them: made of the description of the API, then spoilt. For fast-check. */
import * as fc from "fast-check";
import { type Components, type JsonSchema, valuesOf } from "../../test/helpers/from-schema.ts";

export interface FuzzRequest {
  /** `POST /v1/chat/completions`, as it is described. */
  readonly route: string;
  readonly method: string;
  /** With its query. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  /** As text; `bytes` goes before it. */
  readonly body?: string | undefined;
  /** No UTF-8, in base64. */
  readonly bytes?: string | undefined;
  /** The client leaves then. */
  readonly leavesAfterMs?: number | undefined;
}

interface Parameter {
  readonly $ref?: string;
  readonly name: string;
  readonly in: string;
  readonly schema: JsonSchema;
}

interface OperationObject {
  readonly parameters?: readonly Parameter[];
  readonly requestBody?: {
    readonly content: Readonly<Record<string, { readonly schema?: JsonSchema }>>;
  };
  readonly responses: Readonly<
    Record<string, { readonly content?: Readonly<Record<string, { readonly schema: JsonSchema }>> }>
  >;
}

export interface Description {
  readonly paths: Readonly<Record<string, Readonly<Record<string, OperationObject>>>>;
  readonly components: {
    readonly schemas: Components;
    readonly parameters: Readonly<Record<string, Parameter>>;
  };
}

export interface RequestOptions {
  /** Named in most requests, for few would come far without one. */
  readonly model: string;
  /** Routes that are left out. */
  readonly without: ReadonlySet<string>;
}

/** Beyond what is allowed (256 levels), and far beyond. */
const DEPTHS = [100, 300, 100_000];
const HUGE_TEXT = 300_000;
const LONG_NAME = 10_000;
/** An answer of the model takes some ten milliseconds. */
const LONGEST_STAY_MS = 40;

/** @returns requests to all routes, each as often as the others */
export function requestsTo(
  description: Description,
  options: RequestOptions,
): fc.Arbitrary<FuzzRequest> {
  const routes = Object.entries(description.paths).flatMap(([path, item]) =>
    Object.entries(item)
      .map(([method, operation]) => ({ path, method: method.toUpperCase(), operation }))
      .filter((each) => !options.without.has(`${each.method} ${each.path}`)),
  );
  return fc.constantFrom(...routes).chain((route) => requestTo(route, description, options));
}

// --- internal ---

interface Route {
  readonly path: string;
  readonly method: string;
  readonly operation: OperationObject;
}

function requestTo(
  { path, method, operation }: Route,
  { components }: Description,
  { model }: RequestOptions,
): fc.Arbitrary<FuzzRequest> {
  const parameters = (operation.parameters ?? []).map(({ $ref, ...own }) =>
    $ref === undefined ? own : (components.parameters[$ref.split("/").at(-1) ?? ""] ?? own),
  );
  const of = (place: string): Parameter[] => parameters.filter((each) => each.in === place);
  const content = Object.entries(operation.requestBody?.content ?? {})[0];
  return fc
    .record({
      filled: fc.tuple(...of("path").map(({ name }) => pathValue(name, model))),
      query: wildQuery(of("query"), components.schemas),
      headers: wildHeaders(of("header")),
      body:
        content === undefined
          ? fc.constant({})
          : bodyOf(content[1].schema, components.schemas, model),
      leavesAfterMs: fc.option(fc.integer({ min: 0, max: LONGEST_STAY_MS }), {
        nil: undefined,
        freq: 10,
      }),
    })
    .map(({ filled, query, headers, body, leavesAfterMs }) => {
      let next = 0;
      const whole = path.replaceAll(/\{\w+\}/g, () => filled[next++] ?? "");
      const search = new URLSearchParams(query).toString();
      return {
        route: `${method} ${path}`,
        method,
        path: search === "" ? whole : `${whole}?${search}`,
        headers: content === undefined ? headers : { "content-type": content[0], ...headers },
        ...body,
        leavesAfterMs,
      };
    });
}

function pathValue(name: string, model: string): fc.Arbitrary<string> {
  const wild = fc
    .oneof(
      fc.string({ minLength: 1, unit: "grapheme" }),
      fc.constantFrom("..", "%2e%2e%2f", "a/b:c@sha256:0", "\0", "x".repeat(LONG_NAME)),
    )
    .map((text) => encodeURIComponent(text.toWellFormed()));
  const real = { engine: "llama.cpp", name: model, digest: `sha256:${"0".repeat(64)}` };
  const usual = Object.entries(real).find(([key]) => key === name)?.[1];
  return usual === undefined
    ? wild
    : fc.oneof({ weight: 2, arbitrary: fc.constant(usual) }, { weight: 1, arbitrary: wild });
}

function wildQuery(
  parameters: readonly Parameter[],
  components: Components,
): fc.Arbitrary<[string, string][]> {
  const wild = fc.oneof(
    fc.string({ unit: "grapheme" }),
    fc.constantFrom("", "-1", "NaN", "1e99", "true", "null", "x".repeat(LONG_NAME)),
  );
  const known = parameters.map(({ name, schema }) =>
    fc
      .oneof(valuesOf(schema, components).map(String), wild)
      .map((value): [string, string] => [name, value.toWellFormed()]),
  );
  const unknown = fc.tuple(fc.string(), wild);
  return fc.array(fc.oneof(...known, unknown), { maxLength: 3 });
}

function wildHeaders(parameters: readonly Parameter[]): fc.Arbitrary<Record<string, string>> {
  const value = fc.oneof(
    fc.stringMatching(/^[!-~]{1,40}$/),
    fc.constantFrom("-1", "1e99", "true", "x".repeat(2000)),
  );
  const names = [...parameters.map(({ name }) => name), "accept", "content-type", "x-unknown"];
  return fc.dictionary(fc.constantFrom(...names), value, { maxKeys: 2 });
}

type Body = Pick<FuzzRequest, "body" | "bytes">;

function bodyOf(
  schema: JsonSchema | undefined,
  components: Components,
  model: string,
): fc.Arbitrary<Body> {
  if (schema === undefined) return fc.string().map((body) => ({ body }));
  const valid = valuesOf(schema, components);
  const named = fc
    .tuple(valid, fc.integer({ min: 0, max: 3 }))
    .map(([value, dice]) =>
      dice > 0 && isObject(value) && "model" in value ? { ...value, model } : value,
    );
  return fc.oneof(
    { weight: 6, arbitrary: named.map((value) => ({ body: JSON.stringify(value) })) },
    { weight: 3, arbitrary: named.chain(spoilField) },
    { weight: 2, arbitrary: named.chain(spoilText) },
    {
      weight: 1,
      arbitrary: fc.constantFrom("", "null", "[]", "0", '"', "{}{}").map((body) => ({ body })),
    },
  );
}

/** One field, or one of a field's, is missing or something else. */
function spoilField(value: unknown): fc.Arbitrary<Body> {
  const places = placesIn(value);
  if (places.length === 0) return fc.constant({ body: JSON.stringify(value) });
  const other = fc.oneof(
    fc.constant(undefined),
    fc.jsonValue({ maxDepth: 2 }),
    fc.constantFrom(-1, 1e308, -0.5, "", [], {}, [[]], "\ud800", "x".repeat(HUGE_TEXT)),
  );
  return fc.tuple(fc.constantFrom(...places), other).map(([place, replacement]) => ({
    body: JSON.stringify(replaceAt(value, place, replacement)),
  }));
}

/** The text itself is no longer what it was. */
function spoilText(value: unknown): fc.Arbitrary<Body> {
  const text = JSON.stringify(value);
  const inside = fc.integer({ min: 0, max: text.length });
  const field = fc.constantFrom("model", "stream", "messages", "input", "x");
  const deep = fc.tuple(field, fc.constantFrom(...DEPTHS));
  return fc.oneof(
    inside.map((at) => ({ body: text.slice(0, at) })),
    inside.map((at) => {
      const broken = Buffer.concat([
        Buffer.from(text.slice(0, at)),
        Buffer.from([0xff, 0xc0, 0x80]),
        Buffer.from(text.slice(at)),
      ]);
      return { bytes: broken.toString("base64") };
    }),
    field.map((name) => ({ body: text.replace(/^\{/, `{"${name}":1,`) })),
    field.map((name) => ({ body: text.replace(/\}$/, `,"${name}":"again"}`) })),
    deep.map(([name, depth]) => ({
      body: `{"${name}":${"[".repeat(depth)}${"]".repeat(depth)}}`,
    })),
    fc.constant({ body: text.replaceAll(/-?\d+(?:\.\d+)?/g, "1e999") }),
    fc.constant({ body: `\ufeff${text}` }),
  );
}

type Place = readonly string[];

function placesIn(value: unknown, at: Place = []): Place[] {
  if (typeof value !== "object" || value === null || at.length > 4) return [];
  return Object.entries(value).flatMap(([key, member]) => {
    const place = [...at, key];
    return [place, ...placesIn(member, place)];
  });
}

/** A replacement that is undefined takes the field away. */
function replaceAt(value: unknown, [key = "", ...rest]: Place, replacement: unknown): unknown {
  const inner = (value as Record<string, unknown>)[key];
  const next = rest.length === 0 ? replacement : replaceAt(inner, rest, replacement);
  if (Array.isArray(value))
    return value.map((each, index) => (String(index) === key ? next : each));
  return { ...(value as object), [key]: next };
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
