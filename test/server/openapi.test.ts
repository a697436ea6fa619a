import { describe, expect, test } from "bun:test";
import * as fc from "fast-check";
import * as v from "valibot";
import { describeApi } from "../../src/server/openapi/document.ts";
import { PARTS, REQUESTS } from "../../src/server/openapi/requests.ts";
import { type Components, valuesOf } from "../helpers/from-schema.ts";
import { routesOf, withWholeApp } from "./whole-app.ts";

interface Parameter {
  readonly $ref?: string;
  readonly name: string;
  readonly in: string;
  readonly required?: boolean;
  readonly schema: object;
}

interface DescribedOperation {
  readonly operationId: string;
  readonly summary: string;
  readonly tags: readonly string[];
  readonly parameters?: readonly Parameter[];
  readonly requestBody?: { readonly content: Readonly<Record<string, object>> };
  readonly responses: Readonly<
    Record<string, { readonly description: string; readonly content?: object }>
  >;
  readonly security: readonly Readonly<Record<string, readonly string[]>>[];
}

interface Described {
  readonly route: string;
  readonly path: string;
  readonly operation: DescribedOperation;
}

const MEDIA_TYPE = /^[a-z]+\/[a-z0-9.+-]+$/;
const DOCUMENT = describeApi("1.2.3");
const OPERATIONS: readonly Described[] = Object.entries(DOCUMENT.paths).flatMap(([path, item]) =>
  Object.entries(item).map(([method, operation]) => ({
    route: `${method.toUpperCase()} ${path}`,
    path,
    operation: operation as DescribedOperation,
  })),
);

function find(route: string): DescribedOperation {
  const found = OPERATIONS.find((each) => each.route === route);
  if (found === undefined) throw new Error(`${route} is not described`);
  return found.operation;
}

/** Hono's `:name{.+}` is OpenAPI's `{name}`. */
function toTemplate(pattern: string): string {
  return pattern.replaceAll(/:(\w+)(?:\{[^}]*\})?/g, "{$1}");
}

/** Every `$ref` in a value, wherever it is. */
function refsIn(value: unknown): string[] {
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([key, member]) =>
    key === "$ref" && typeof member === "string" ? [member] : refsIn(member),
  );
}

describe("what is described", () => {
  test("every route of the app, and nothing else", async () => {
    const routes = await withWholeApp(routesOf);
    const registered = new Set(routes.map(({ method, path }) => `${method} ${toTemplate(path)}`));
    const described = new Set(OPERATIONS.map(({ route }) => route));

    expect(registered.size).toBeGreaterThan(150);
    expect([...registered.difference(described)]).toEqual([]);
    expect([...described.difference(registered)]).toEqual([]);
  });

  test("the same route under all its prefixes, by one schema", () => {
    const paths = ["/v1", "/engines/v1", "/engines/{engine}/v1"];
    const bodies = paths.map((path) => find(`POST ${path}/chat/completions`).requestBody);

    expect(bodies[0]?.content["application/json"]).toEqual({
      schema: { $ref: "#/components/schemas/ChatCompletionsRequest" },
    });
    expect(bodies[1]).toEqual(bodies[0]);
    expect(bodies[2]).toEqual(bodies[0]);
  });

  test.each([
    ["POST /v1/chat/completions", "OpenaiError"],
    ["POST /v1/messages", "AnthropicError"],
    ["GET /anthropic/v1/models", "AnthropicError"],
    ["POST /api/chat", "OllamaError"],
    ["POST /models/create", "OpenaiError"],
  ])("%s fails as %s", (route, schema) => {
    expect(refsIn(find(route).responses["default"])).toEqual([`#/components/schemas/${schema}`]);
  });

  test.each([
    ["GET /health/live", []],
    ["GET /version", [{}, { bearer: [] }, { apiKey: [] }]],
    ["POST /api/chat", [{}, { bearer: ["inference"] }, { apiKey: ["inference"] }]],
    ["POST /keys", [{}, { bearer: ["admin"] }, { apiKey: ["admin"] }]],
    ["DELETE /models/{name}", [{}, { bearer: ["models"] }, { apiKey: ["models"] }]],
  ])("%s needs the scope that is checked", (route, security) => {
    expect(find(route).security).toEqual(security);
  });
});

describe("the structure that OpenAPI 3.1 asks for", () => {
  test("names of operations are unique, and only letters, digits and underscores", () => {
    const names = OPERATIONS.map(({ operation }) => operation.operationId);

    expect(names.length).toBe(new Set(names).size);
    expect(names.filter((name) => !/^[A-Za-z]\w*$/.test(name))).toEqual([]);
  });

  test("every reference leads somewhere", () => {
    const refs = new Set(refsIn(DOCUMENT));
    const lost = [...refs].filter((ref) => {
      const [root, section, group = "", name = "", ...rest] = ref.split("/");
      const found = DOCUMENT.components[group]?.[name];
      return root !== "#" || section !== "components" || rest.length > 0 || found === undefined;
    });

    expect(refs.size).toBeGreaterThan(40);
    expect(lost).toEqual([]);
  });

  test("no schema is there for nobody", () => {
    const used = new Set(refsIn(DOCUMENT));
    const unused = Object.entries(DOCUMENT.components)
      .filter(([group]) => group !== "securitySchemes")
      .flatMap(([group, members]) =>
        Object.keys(members).map((name) => `#/components/${group}/${name}`),
      )
      .filter((ref) => !used.has(ref));

    expect(unused).toEqual([]);
  });

  test("a path's parameters are those of its template, each once", () => {
    for (const { route, path, operation } of OPERATIONS) {
      const own = (operation.parameters ?? []).filter(({ $ref }) => $ref === undefined);
      const inPath = own.filter((parameter) => parameter.in === "path");
      const template = Array.from(path.matchAll(/\{(\w+)\}/g), ([, name = ""]) => name);

      expect([route, inPath.map(({ name }) => name)]).toEqual([route, template]);
      expect(inPath.every(({ required }) => required === true)).toBe(true);
      expect(new Set(own.map((each) => `${each.in} ${each.name}`)).size).toBe(own.length);
      expect(own.every(({ schema }) => typeof schema === "object")).toBe(true);
    }
  });

  test("paths begin with a slash and differ by more than names of parameters", () => {
    const paths = Object.keys(DOCUMENT.paths);
    const shapes = new Set(paths.map((path) => path.replaceAll(/\{\w+\}/g, "{}")));

    expect(paths.filter((path) => !path.startsWith("/"))).toEqual([]);
    expect(shapes.size).toBe(paths.length);
  });

  test("responses have a status and a description, bodies a media type, tags a section", () => {
    const tags = new Set(DOCUMENT.tags.map((tag) => (tag as { name: string }).name));
    for (const { operation } of OPERATIONS) {
      const { responses, requestBody } = operation;
      const statuses = Object.keys(responses);
      const contents = [requestBody, ...Object.values(responses)].map(
        (body) => body?.content ?? {},
      );

      expect(statuses).toContain("default");
      expect(statuses.filter((status) => !/^(?:[1-5]\d\d|default)$/.test(status))).toEqual([]);
      expect(Object.values(responses).every(({ description }) => description !== "")).toBe(true);
      expect(contents.flatMap(Object.keys).filter((type) => !MEDIA_TYPE.test(type))).toEqual([]);
      expect(operation.tags.filter((tag) => !tags.has(tag))).toEqual([]);
      expect(operation.summary).toMatch(/^[^.].*[^.]$/);
    }
  });
});

describe("schemas of requests", () => {
  const components = DOCUMENT.components["schemas"] as Components;

  test.each(Object.entries({ ...REQUESTS, ...PARTS }))(
    "%s: what is described is accepted",
    (name, schema) => {
      const described = components[name];
      if (described === undefined) throw new Error(`${name} is not described`);
      fc.assert(
        fc.property(valuesOf(described, components), (value) => {
          expect(v.safeParse(schema as v.GenericSchema, value).issues).toBeUndefined();
        }),
        // The same ones each time: what is found once is found again.
        { numRuns: 40, seed: 1 },
      );
    },
  );

  test.each([
    ["ChatCompletionsRequest", "model"],
    ["MessagesRequest", "max_tokens"],
    ["OllamaCopyRequest", "source"],
    ["PullRequest", "from"],
    ["CreateKeyRequest", "name"],
  ])("%s: `%s` is required in both", (name, field) => {
    const schema = REQUESTS[name as keyof typeof REQUESTS] as v.GenericSchema;
    const missing = v.safeParse(schema, {}).issues?.map((issue) => v.getDotPath(issue));

    expect(components[name]?.required).toContain(field);
    expect(missing).toContain(field);
  });

  test("what has a default need not be sent", () => {
    expect(components["PruneRequest"]?.required).toEqual([]);
  });
});

describe("GET /openapi.json", () => {
  test("is the document, the same each time", async () => {
    const [first, second, head] = await withWholeApp((app) =>
      Promise.all([
        app.request("/openapi.json"),
        app.request("/openapi.json/"),
        app.request("/openapi.json", { method: "HEAD" }),
      ]),
    );

    expect(first?.status).toBe(200);
    expect(first?.headers.get("content-type")).toBe("application/json");
    const body = (await first?.json()) as { openapi: string; paths: object };
    expect(body.openapi).toBe("3.1.0");
    expect(body.paths).toEqual(DOCUMENT.paths);
    expect(await second?.json()).toEqual(body);
    expect(head?.status).toBe(200);
    expect(await head?.text()).toBe("");
  });

  test("nothing of it is loaded before somebody asks", async () => {
    const { app, route } = { app: "src/server/app.ts", route: "src/server/routes/openapi.ts" };
    const script = `
      for (const path of ${JSON.stringify([app, route])}) await import(process.cwd() + "/" + path);
      const loaded = Object.keys(require.cache);
      console.log(JSON.stringify({
        known: loaded.some((path) => path.endsWith("routes/openapi.ts")),
        heavy: loaded.filter((path) => /to-json-schema|server\\/openapi\\//.test(path)),
      }));`;
    const child = Bun.spawn([process.execPath, "-e", script], { stdout: "pipe" });

    expect(JSON.parse(await child.stdout.text())).toEqual({ known: true, heavy: [] });
  });
});
