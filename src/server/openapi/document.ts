/**
 * The description of the whole API, from the tables of its routes and the schemas that check requests. Pure.
 *
 * @see https://spec.openapis.org/oas/v3.1.0
 */
import { requirementOf } from "../access/scopes.ts";
import { dialectOf } from "../dialect.ts";
import { ENGINE_OPERATIONS } from "./engine-operations.ts";
import { INFERENCE_OPERATIONS } from "./inference-operations.ts";
import { MODEL_OPERATIONS } from "./model-operations.ts";
import { DIGEST, OLLAMA_OPERATIONS } from "./ollama-operations.ts";
import { type Answer, JSON_TYPE, type Operation, type ParameterSchema } from "./operation.ts";
import { requestSchemas, SCHEMAS_AT } from "./schemas.ts";
import { ERROR_SCHEMAS, HEADERS, SECURITY_SCHEMES, TAGS } from "./shared.ts";

export const OPERATIONS: readonly Operation[] = [
  ...INFERENCE_OPERATIONS,
  ...OLLAMA_OPERATIONS,
  ...MODEL_OPERATIONS,
  ...ENGINE_OPERATIONS,
];

/** As far as readers of it need; the rest is JSON. */
export interface OpenapiDocument {
  readonly openapi: "3.1.0";
  readonly info: object;
  readonly servers: readonly object[];
  readonly tags: readonly object[];
  readonly paths: Readonly<Record<string, Readonly<Record<string, object>>>>;
  readonly components: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
}

/** @param version Tug's own */
export function describeApi(version: string): OpenapiDocument {
  return {
    openapi: "3.1.0",
    info: {
      title: "Tug",
      version,
      license: { name: "Apache-2.0", identifier: "Apache-2.0" },
      description: ABOUT,
    },
    servers: [
      { url: "/" },
      { url: "/exp/vDD4.40", description: "What Docker Desktop puts in front of every path" },
    ],
    tags: TAGS,
    paths: toPaths(OPERATIONS),
    components: {
      schemas: { ...requestSchemas(), ...ERROR_SCHEMAS },
      parameters: HEADERS,
      securitySchemes: SECURITY_SCHEMES,
    },
  };
}

/** A route under all its prefixes, as OpenAPI writes paths. */
export function pathsOf({ prefixes = [""], path }: Operation): readonly string[] {
  return prefixes.map((prefix) => `${prefix}${path}`.replaceAll(/:(\w+)/g, "{$1}"));
}

// --- internal ---

const ABOUT =
  "Models on this machine, in the words of OpenAI, Anthropic, Ollama and Docker Model Runner. Names of models in paths " +
  "may have slashes, which need no escaping. HEAD is answered wherever GET is.";

/** Of paths; whatever is not named is an id. */
const PARAMETERS: Readonly<Record<string, ParameterSchema>> = {
  name: { type: "string", description: "Of a model, with its slashes." },
  engine: { type: "string", description: "Such as `llama.cpp`." },
  digest: DIGEST,
};

function toPaths(operations: readonly Operation[]): OpenapiDocument["paths"] {
  const paths: Record<string, Record<string, object>> = {};
  for (const operation of operations) {
    pathsOf(operation).forEach((path, index) => {
      const id = index === 0 ? operation.name : `${operation.name}${toWords(operation, index)}`;
      (paths[path] ??= {})[operation.method] = toOperation(operation, path, id);
    });
  }
  return paths;
}

/** `/engines/:engine/v1` → `_engines_engine_v1`. */
function toWords({ prefixes = [] }: Operation, index: number): string {
  const words = prefixes[index]?.match(/\w+/g) ?? [];
  return ["", ...(words.length === 0 ? ["plain"] : words)].join("_");
}

function toOperation(operation: Operation, path: string, operationId: string): object {
  const { tag, summary, description, method } = operation;
  const parameters = toParameters(operation, path);
  const requestBody = toRequestBody(operation);
  return {
    operationId,
    tags: [tag],
    summary,
    ...(description === undefined ? {} : { description }),
    ...(parameters.length === 0 ? {} : { parameters }),
    ...(requestBody === undefined ? {} : { requestBody }),
    responses: toResponses(operation, path),
    security: toSecurity(method, path),
  };
}

function toParameters({ query = {}, isInference = false }: Operation, path: string): object[] {
  const inPath = Array.from(path.matchAll(/\{(\w+)\}/g), ([, name = ""]) => ({
    name,
    in: "path",
    required: true,
    schema: PARAMETERS[name] ?? { type: "string" },
  }));
  const inQuery = Object.entries(query).map(([name, schema]) => ({ name, in: "query", schema }));
  const headers = isInference
    ? Object.keys(HEADERS).map((name) => ({ $ref: `#/components/parameters/${name}` }))
    : [];
  return [...inPath, ...inQuery, ...headers];
}

function toRequestBody({ request, upload, isBodyOptional }: Operation): object | undefined {
  const required = isBodyOptional !== true;
  if (upload !== undefined) return { required, content: { [upload]: {} } };
  if (request === undefined) return undefined;
  return { required, content: { [JSON_TYPE]: { schema: { $ref: `${SCHEMAS_AT}${request}` } } } };
}

function toResponses({ answers, failures = {} }: Operation, path: string): object {
  const failure = {
    [JSON_TYPE]: { schema: { $ref: `${SCHEMAS_AT}${errorSchemaOf(path)}` } },
  };
  const named = Object.entries(failures).map(([status, description]) => [
    status,
    { description, content: failure },
  ]);
  return {
    ...Object.fromEntries(answers.map((answer) => [answer.status ?? 200, toResponse(answer)])),
    ...Object.fromEntries(named),
    default: { description: "It failed", content: failure },
  };
}

function toResponse({ description, types = [JSON_TYPE], shape = "object" }: Answer): object {
  const content = types.map((type) => [type, toMedia(type, shape)]);
  return types.length === 0
    ? { description }
    : { description, content: Object.fromEntries(content) };
}

/** Text is; bytes have no schema (OpenAPI 3.1, "Considerations for File Uploads"). */
function toMedia(type: string, shape: "object" | "array"): object {
  if (type === JSON_TYPE) return { schema: { type: shape } };
  return /^text\/|ndjson$/.test(type) ? { schema: { type: "string" } } : {};
}

/** By the one rule that renders errors. */
function errorSchemaOf(path: string): keyof typeof ERROR_SCHEMAS {
  const { name } = dialectOf(path);
  if (name === "anthropic") return "AnthropicError";
  return name === "ollama" ? "OllamaError" : "OpenaiError";
}

/** Without a key, by the socket and on loopback; the scope that a key needs is the one that is checked. */
function toSecurity(method: string, path: string): object[] {
  const needs = requirementOf(method.toUpperCase(), path.replaceAll(/[{}]/g, ""));
  if (needs === "public") return [];
  const scopes = needs === "any" ? [] : [needs];
  return [{}, { bearer: scopes }, { apiKey: scopes }];
}
