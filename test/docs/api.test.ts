import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import * as v from "valibot";
import { OPERATIONS, pathsOf } from "../../src/server/openapi/document.ts";
import type { Operation } from "../../src/server/openapi/operation.ts";
import { REQUESTS } from "../../src/server/openapi/requests.ts";
import { requestSchemas } from "../../src/server/openapi/schemas.ts";
import { routesOf, withWholeApp } from "../server/whole-app.ts";

const TEXT = await Bun.file(join(import.meta.dir, "../../docs/api.md")).text();
const METHOD = /^(?:GET|POST|PUT|PATCH|DELETE|HEAD) /;

interface Section {
  readonly title: string;
  readonly text: string;
  /** What is in backticks outside of examples. */
  readonly words: ReadonlySet<string>;
}

const SECTIONS: readonly Section[] = TEXT.split(/^## /m)
  .slice(1)
  .map((text) => {
    const prose = text.replaceAll(/^```.*?^```$/gms, "");
    const words = Array.from(prose.matchAll(/`([^`\n]+)`/g), ([, word = ""]) => word);
    return { title: text.slice(0, text.indexOf("\n")), text, words: new Set(words) };
  });

/** `[/a[/{b}]]/c` → `/c`, `/a/c`, `/a/{b}/c`: the innermost brackets first. */
function expand(pattern: string): string[] {
  const match = /\[([^[\]]*)\]/.exec(pattern);
  if (match === null) return [pattern];
  const [whole, inner = ""] = match;
  return ["", inner].flatMap((part) => expand(pattern.replace(whole, part)));
}

function routesIn({ words }: Section): string[] {
  return [...words].filter((word) => METHOD.test(word)).flatMap(expand);
}

const DOCUMENTED = new Set(SECTIONS.flatMap(routesIn));

interface Example {
  readonly method: string;
  readonly path: string;
  readonly body: string;
}

const EXAMPLES: readonly Example[] = Array.from(
  TEXT.matchAll(/^```http\n(\w+) (\S+)\n\n(.*?)^```$/gms),
  ([, method = "", path = "", body = ""]) => ({ method, path, body }),
);

function matches(template: string, path: string): boolean {
  const parts = template.split(/\{\w+\}/).map((part) => RegExp.escape(part));
  return new RegExp(`^${parts.join(".+")}$`, "u").test(path);
}

function operationOf({ method, path }: Example): Operation | undefined {
  const sameMethod = OPERATIONS.filter((each) => each.method === method.toLowerCase());
  // A path of its own goes before one with a parameter that would fit.
  return (
    sameMethod.find((each) => pathsOf(each).includes(path)) ??
    sameMethod.find((each) => pathsOf(each).some((template) => matches(template, path)))
  );
}

interface ObjectSchema {
  readonly properties?: Readonly<Record<string, unknown>>;
  readonly anyOf?: readonly ObjectSchema[];
}

function fieldsOf({ properties = {}, anyOf = [] }: ObjectSchema): string[] {
  return [...Object.keys(properties), ...anyOf.flatMap(fieldsOf)];
}

describe("docs/api.md", () => {
  test("has every route of the app, and no other", async () => {
    const routes = await withWholeApp(routesOf);
    const registered = new Set(
      routes.map(
        ({ method, path }) => `${method} ${path.replaceAll(/:(\w+)(\{[^}]*\})?/g, "{$1}")}`,
      ),
    );

    expect(registered.size).toBeGreaterThan(150);
    expect([...registered.difference(DOCUMENTED)]).toEqual([]);
    expect([...DOCUMENTED.difference(registered)]).toEqual([]);
  });

  test("says of every field of a request what becomes of it, where its route is", () => {
    const schemas = requestSchemas() as Readonly<Record<string, ObjectSchema>>;
    const common = SECTIONS.find(({ title }) => title === "Every request")?.words ?? new Set();
    const missing = OPERATIONS.flatMap((operation) => {
      const route = `${operation.method.toUpperCase()} ${pathsOf(operation)[0]}`;
      const section = SECTIONS.find((each) => routesIn(each).includes(route));
      const schema = operation.request && schemas[operation.request];
      const fields = [
        ...(schema === undefined ? [] : fieldsOf(schema)),
        ...Object.keys(operation.query ?? {}),
      ];
      return fields
        .filter((field) => !mentions(section?.words, field) && !mentions(common, field))
        .map((field) => `${route}: ${field}`);
    });

    expect(missing).toEqual([]);
  });

  test("has examples of all dialects", () => {
    const tags = new Set(EXAMPLES.map((example) => operationOf(example)?.tag));

    expect(tags).toEqual(new Set(["Anthropic", "Engines", "Models", "Ollama", "OpenAI", "Runner"]));
  });

  test.each(EXAMPLES.map((example) => [`${example.method} ${example.path}`, example] as const))(
    "the example of %s is accepted",
    (_, example) => {
      const request = operationOf(example)?.request;
      if (request === undefined) throw new Error("no such route takes a body");
      const schema: v.GenericSchema = REQUESTS[request];

      expect(v.safeParse(schema, JSON.parse(example.body)).issues).toBeUndefined();
    },
  );
});

/** `field`, or `field` with a value, as in `keep_alive: 0` and `stream=true`. */
function mentions(words: ReadonlySet<string> | undefined, field: string): boolean {
  return [...(words ?? [])].some(
    (word) => word === field || /^[\w-]+(?=[:=])/.exec(word)?.[0] === field,
  );
}
