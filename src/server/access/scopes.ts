/**
 * Which scope of a key opens which route. One table, read from the top: the first line that fits decides, and what no
 * line fits needs `admin`, so that a route that is forgotten here is closed to ordinary keys. Reading what models there
 * are is for `any` key. `keep_alive: 0` in an inference request unloads a model and stays inference: it is a part of
 * that request, and only puts off the next one.
 */
import type { KeyScope } from "../../api/keys.ts";

/** `any`: every live key. `public`: no key at all. */
export type Requirement = KeyScope | "any" | "public";

interface Rule {
  /** HEAD counts as GET; absent: all. */
  readonly methods?: readonly string[];
  readonly path: RegExp;
  /** Only with this parameter. */
  readonly query?: string;
  readonly needs: Requirement;
}

const READ = ["GET"];
const POST = ["POST"];

const RULES: readonly Rule[] = [
  // Probes of an orchestrator carry no key and learn nothing.
  { methods: READ, path: /^\/health\/(?:live|ready)$/, needs: "public" },
  { methods: READ, path: /^\/(?:health|version|openapi\.json)?$/, needs: "any" },
  { methods: READ, path: /^\/metrics$/, needs: "inference" },

  // Models on this machine, in four APIs; in a registry is another matter: the runner asks whatever host is named.
  { methods: READ, path: /^\/models\/.+$/, query: "remote", needs: "models" },
  { methods: READ, path: /^\/models(?:\/(?!search$|pulls$|.+\/export$).+)?$/, needs: "any" },
  { methods: ["DELETE"], path: /^\/models\/purge$/, needs: "admin" },
  { path: /^\/models(?:\/|$)/, needs: "models" },
  { methods: READ, path: /^(?:\/engines(?:\/[^/]+)?)?\/v1\/models(?:\/.+)?$/, needs: "any" },
  { path: /^(?:\/engines(?:\/[^/]+)?)?\/v1\/models(?:\/|$)/, needs: "models" },
  { methods: READ, path: /^\/anthropic\/v1\/models(?:\/.+)?$/, needs: "any" },
  { methods: READ, path: /^\/api\/(?:version|tags|ps)$/, needs: "any" },
  { methods: POST, path: /^\/api\/show$/, needs: "any" },
  { path: /^\/api\/(?:pull|push|create|copy|delete|blobs\/[^/]+)$/, needs: "models" },

  // As of OpenAI's, the address is the key: nobody can guess it, and pages show it as a picture.
  { methods: READ, path: /^\/v1\/images\/files\/[^/]+$/, needs: "public" },

  // Answers.
  { path: /^(?:\/engines(?:\/[^/]+)?)?\/v1\/.+$/, needs: "inference" },
  { path: /^\/anthropic\/.+$/, needs: "inference" },
  { methods: POST, path: /^\/api\/(?:chat|generate|embed|embeddings)$/, needs: "inference" },
  {
    methods: POST,
    path: /^(?:\/engines(?:\/[^/]+)?)?\/(?:generate|embeddings|rerank|score|tokenize|detokenize|count|chat\/completions|completions)$/,
    needs: "inference",
  },

  { path: /^(?:\/engines)?\/responses(?:\/.+)?$/, needs: "inference" },

  // Engines, and the models in memory.
  { methods: READ, path: /^\/engines(?:\/(?:available|status|ps|df))?$/, needs: "any" },
  { methods: READ, path: /^\/engines\/events$/, needs: "inference" },
  { methods: POST, path: /^\/engines\/(?:load|explain)$/, needs: "inference" },
  {
    methods: POST,
    path: /^\/engines\/(?:estimate|install-backend|uninstall-backend|use)$/,
    needs: "models",
  },
  { path: /^\/engines\/(?:[^/]+\/)?_configure$/, needs: "admin" },
  { methods: POST, path: /^\/engines\/(?:unload|pin)$/, needs: "admin" },
  // What others asked, and who may ask.
  { path: /^\/engines\/requests(?:\/[^/]+)?$/, needs: "admin" },
  { path: /^\/logs$/, needs: "admin" },
  { path: /^\/keys(?:\/.+)?$/, needs: "admin" },
  { path: /^\/runner(?:\/.+)?$/, needs: "admin" },
  { path: /^\/registries\/.+$/, needs: "admin" },
];

/** Whether a parameter is in the query. */
export type HasQuery = (name: string) => boolean;

/** @param path as routes are matched (`routePath`): without doubled and trailing slashes, still percent-encoded */
export function requirementOf(
  method: string,
  path: string,
  hasQuery: HasQuery = () => false,
): Requirement {
  return ruleOf(method, path, hasQuery) ?? "admin";
}

/** Undefined: no line of the table fits. */
export function ruleOf(
  method: string,
  path: string,
  hasQuery: HasQuery = () => false,
): Requirement | undefined {
  const asked = method === "HEAD" ? "GET" : method;
  return RULES.find(
    (rule) =>
      (rule.methods?.includes(asked) ?? true) &&
      rule.path.test(path) &&
      (rule.query === undefined || hasQuery(rule.query)),
  )?.needs;
}

export function isAllowed(scopes: readonly KeyScope[], needs: Requirement): boolean {
  if (needs === "public" || needs === "any") return true;
  return scopes.includes(needs) || scopes.includes("admin");
}
