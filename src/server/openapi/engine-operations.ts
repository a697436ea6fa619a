/** The routes about engines, what is set for models and what they were asked, and about the runner itself. */
import {
  type Answer,
  EVENTS,
  flag,
  JSON_TYPE,
  LINES,
  type Operation,
  PROGRESS,
  TEXT,
  text,
} from "./operation.ts";

const MODE = ["completion", "embedding", "reranking", "image-generation"];
const CONFIGURE_PREFIXES = ["/engines", "/engines/:engine"];
const PRIVATE = { 403: "Only by the runner's socket, or with a key that has the scope `admin`" };
const LIST: Answer = { description: "The list", shape: "array" };

type Row = Omit<Operation, "tag" | "method">;

function engines(method: Operation["method"], row: Row): Operation {
  return { method, tag: "Engines", ...row };
}

function runner(method: Operation["method"], row: Row): Operation {
  return { method, tag: "Runner", ...row };
}

const INSTALLING: readonly Operation[] = [
  engines("get", {
    path: "/engines",
    name: "listEngines",
    summary: "List the engines on this machine",
    answers: [LIST],
  }),
  engines("get", {
    path: "/engines/available",
    name: "listAvailableEngines",
    summary: "List the engines that there are, installed or not, and what they lack",
    answers: [LIST],
  }),
  engines("get", {
    path: "/engines/status",
    name: "getEngineStatus",
    summary: "Which engines are installed",
    answers: [{ description: "A sentence an engine" }],
  }),
  engines("get", {
    path: "/engines/df",
    name: "getDiskUsage",
    summary: "What models and engines occupy on the disk",
    answers: [{ description: "Bytes" }],
  }),
  engines("post", {
    path: "/engines/install-backend",
    name: "installEngine",
    summary: "Install an engine",
    request: "InstallRequest",
    isBodyOptional: true,
    answers: [{ description: "Done; progress for who accepts it", types: [LINES] }],
    failures: { 501: "It does not run here", 503: "It cannot be installed" },
  }),
  engines("post", {
    path: "/engines/use",
    name: "useEngine",
    summary: "Make an installed version of an engine the active one, or go back to the one before",
    request: "UseRequest",
    answers: [{ description: "The active one" }],
    failures: {
      409: "An environment variable names the engine, or it is being installed",
      412: "It is not installed",
    },
  }),
  engines("post", {
    path: "/engines/uninstall-backend",
    name: "uninstallEngine",
    summary: "Remove an engine",
    request: "UninstallRequest",
    answers: [{ description: "What went", shape: "array" }],
  }),
];

const WORKING: readonly Operation[] = [
  engines("get", {
    path: "/engines/ps",
    name: "listWorkers",
    summary: "List the models in memory",
    answers: [LIST],
  }),
  engines("post", {
    path: "/engines/load",
    name: "loadModel",
    summary: "Load a model into memory",
    request: "LoadRequest",
    isInference: true,
    answers: [PROGRESS],
  }),
  engines("post", {
    path: "/engines/unload",
    name: "unloadModels",
    summary: "Take models out of memory",
    request: "UnloadRequest",
    answers: [{ description: "How many went, and which did not" }],
  }),
  engines("post", {
    path: "/engines/pin",
    name: "pinModels",
    summary: "Keep models in memory, or no longer",
    request: "PinRequest",
    answers: [{ description: "The models" }],
  }),
  engines("get", {
    path: "/engines/events",
    name: "followEvents",
    summary: "What happens to the models in memory, as it happens",
    answers: [{ description: "Events", types: [EVENTS] }],
  }),
];

const SETTINGS: readonly Operation[] = [
  engines("post", {
    path: "/_configure",
    prefixes: CONFIGURE_PREFIXES,
    name: "configureModel",
    summary: "Set how a model runs",
    request: "ConfigureRequest",
    answers: [
      { description: "To a body with `set`: what is set now" },
      { status: 202, description: "To Docker Model Runner's body", types: [] },
    ],
  }),
  engines("get", {
    path: "/_configure",
    prefixes: CONFIGURE_PREFIXES,
    name: "listSettings",
    summary: "What is set for models",
    query: { model: text("Of this one alone") },
    answers: [LIST],
  }),
  engines("delete", {
    path: "/_configure",
    prefixes: CONFIGURE_PREFIXES,
    name: "resetSettings",
    summary: "Forget what is set for a model",
    query: {
      model: text("The model"),
      mode: { type: "string", enum: MODE, description: "For this alone" },
      all: flag("Of all models"),
    },
    answers: [{ description: "How many settings went" }],
  }),
  engines("post", {
    path: "/engines/explain",
    name: "explainPlan",
    summary: "How a model would run, and who says so",
    request: "ExplainRequest",
    answers: [{ description: "The plan" }],
  }),
  engines("post", {
    path: "/engines/estimate",
    name: "estimateMemory",
    summary: "How much memory a model takes",
    request: "EstimateRequest",
    answers: [{ description: "Bytes" }],
  }),
];

const RECORDED: readonly Operation[] = [
  engines("get", {
    path: "/engines/requests",
    name: "listRequests",
    summary: "What was asked and answered",
    query: {
      model: text("Of this one alone"),
      limit: { type: "integer", minimum: 1, maximum: 1000, description: "Default: 100." },
      include_existing: flag("As events: those before, too"),
    },
    answers: [{ description: "By model", shape: "array", types: [JSON_TYPE, EVENTS] }],
    failures: PRIVATE,
  }),
  engines("get", {
    path: "/engines/requests/{id}",
    name: "getRequest",
    summary: "One request and its answer",
    answers: [{ description: "The record" }],
    failures: PRIVATE,
  }),
  engines("delete", {
    path: "/engines/requests",
    name: "clearRequests",
    summary: "Forget what was asked",
    answers: [{ description: "How many went" }],
    failures: PRIVATE,
  }),
];

const RUNNER: readonly Operation[] = [
  runner("get", {
    path: "/runner",
    name: "getRunner",
    summary: "The runner: its process, addresses and memory",
    answers: [{ description: "The runner" }],
  }),
  runner("post", {
    path: "/runner/stop",
    name: "stopRunner",
    summary: "Ask the runner to leave",
    query: {
      pid: { type: "integer", description: "Only if it is this process" },
      force: flag("Without waiting for answers"),
    },
    answers: [{ status: 202, description: "It will", types: [] }],
    failures: { 403: "Only by the runner's socket" },
  }),
  runner("get", {
    path: "/logs",
    name: "getLogs",
    summary: "The logs of the runner and its engines, merged by time",
    query: {
      follow: flag("And what is added"),
      "no-engines": flag("The runner's alone"),
      since: text("A duration such as `10m`, or a time of RFC 3339"),
      tail: text("How many lines, at most 100,000; `all`"),
      model: text("Of this one alone"),
    },
    answers: [{ description: "Lines", types: [TEXT] }],
    failures: PRIVATE,
  }),
  runner("get", {
    path: "/metrics",
    name: "getMetrics",
    summary: "Counters for Prometheus",
    answers: [{ description: "Text format 0.0.4", types: [TEXT] }],
    failures: { 404: "They are turned off" },
  }),
];

const KEYS: readonly Operation[] = [
  runner("get", {
    path: "/keys",
    name: "listKeys",
    summary: "List API keys",
    answers: [LIST],
    failures: PRIVATE,
  }),
  runner("post", {
    path: "/keys",
    name: "createKey",
    summary: "Make an API key",
    request: "CreateKeyRequest",
    answers: [{ status: 201, description: "The key, shown once" }],
    failures: { ...PRIVATE, 409: "There is one of that name" },
  }),
  runner("post", {
    path: "/keys/revoke",
    name: "revokeKeys",
    summary: "Revoke API keys",
    request: "RevokeKeysRequest",
    answers: [{ description: "Which were revoked, and which nobody knows" }],
    failures: PRIVATE,
  }),
];

const PROBES: readonly Operation[] = [
  runner("get", {
    path: "/",
    name: "getRoot",
    summary: "Whether this is Tug",
    answers: [{ description: "A sentence", types: [TEXT] }],
  }),
  runner("get", {
    path: "/version",
    name: "getVersion",
    summary: "Tug's version",
    answers: [{ description: "`version`, and of a runner `pid` and `stopping`" }],
  }),
  runner("get", {
    path: "/openapi.json",
    name: "getDescription",
    summary: "This description",
    answers: [{ description: "OpenAPI 3.1" }],
  }),
  runner("get", {
    path: "/health",
    name: "getHealth",
    summary: "Whether it answers",
    answers: [{ description: "It does" }],
  }),
  runner("get", {
    path: "/health/live",
    name: "getLiveness",
    summary: "Whether it answers",
    answers: [{ description: "It does" }],
  }),
  runner("get", {
    path: "/health/ready",
    name: "getReadiness",
    summary: "Whether it can run models",
    answers: [{ description: "It can" }],
    failures: { 503: "It cannot" },
  }),
];

export const ENGINE_OPERATIONS: readonly Operation[] = [
  ...INSTALLING,
  ...WORKING,
  ...SETTINGS,
  ...RECORDED,
  ...RUNNER,
  ...KEYS,
  ...PROBES,
];
