/** The routes about models on this machine, most of them Docker Model Runner's, and about registries. */
import { flag, NO_BODY, type Operation, PROGRESS, TAR, text } from "./operation.ts";

type Row = Omit<Operation, "tag" | "method">;

function post(row: Row): Operation {
  return { method: "post", tag: "Models", ...row };
}

function get(row: Row): Operation {
  return { method: "get", tag: "Models", ...row };
}

function remove(row: Row): Operation {
  return { method: "delete", tag: "Models", ...row };
}

const LOCAL_ONLY = { 403: "Only by the runner's socket: it reads files of this machine" };

const READING: readonly Operation[] = [
  get({
    path: "/models",
    name: "listModels",
    summary: "List the models on this machine",
    answers: [{ description: "The models", shape: "array" }],
  }),
  get({
    path: "/models/{name}",
    name: "getModel",
    summary: "Describe a model",
    query: { remote: flag("In its registry, not here") },
    answers: [{ description: "The model" }],
  }),
  get({
    path: "/models/search",
    name: "searchModels",
    summary: "Search Docker Hub and Hugging Face",
    query: {
      q: text("Words to look for"),
      source: { type: "string", enum: ["docker", "huggingface", "all"] },
      limit: { type: "integer", minimum: 1, maximum: 1000, description: "Default: 25." },
    },
    answers: [{ description: "What was found", shape: "array" }],
  }),
  get({
    path: "/models/{name}/export",
    name: "exportModel",
    summary: "A model as an archive",
    answers: [{ description: "An OCI image layout", types: [TAR] }],
  }),
  post({
    path: "/models/export",
    name: "exportModels",
    summary: "Several models as one archive",
    request: "ExportRequest",
    answers: [{ description: "An OCI image layout", types: [TAR] }],
  }),
];

const MOVING: readonly Operation[] = [
  post({
    path: "/models/create",
    name: "pullModel",
    summary: "Fetch a model",
    request: "PullRequest",
    answers: [PROGRESS, { status: 202, description: "With `detach`: it goes on in the runner" }],
  }),
  post({
    path: "/models/{name}/push",
    name: "pushModel",
    summary: "Send a model to a registry",
    request: "PushRequest",
    isBodyOptional: true,
    answers: [PROGRESS],
  }),
  post({
    path: "/models/copy",
    name: "copyModel",
    summary: "Copy a model from one registry to another",
    request: "CopyRequest",
    answers: [PROGRESS],
  }),
  post({
    path: "/models/load",
    name: "loadArchive",
    summary: "Take the models of an archive into the store",
    upload: TAR,
    answers: [PROGRESS],
  }),
  post({
    path: "/models/adopt",
    name: "adoptModels",
    summary: "Take files of other programs into the store",
    request: "AdoptRequest",
    isBodyOptional: true,
    answers: [PROGRESS],
    failures: LOCAL_ONLY,
  }),
  get({
    path: "/models/pulls",
    name: "listPulls",
    summary: "List the pulls that the runner does",
    answers: [{ description: "The pulls", shape: "array" }],
  }),
  remove({
    path: "/models/pulls/{id}",
    name: "cancelPull",
    summary: "Cancel a pull",
    answers: [{ description: "The pull" }],
  }),
];

const CHANGING: readonly Operation[] = [
  post({
    path: "/models/package",
    name: "packageModel",
    summary: "Make a model of files",
    request: "PackageRequest",
    answers: [PROGRESS],
    failures: LOCAL_ONLY,
  }),
  post({
    path: "/models/{name}/repackage",
    name: "repackageModel",
    summary: "Make a variant of a model",
    request: "RepackageRequest",
    answers: [{ status: 201, description: "The variant's name" }],
  }),
  post({
    path: "/models/{name}/tag",
    name: "tagModel",
    summary: "Give a model another name",
    query: { repo: text("The new name"), tag: text("Its tag") },
    answers: [{ status: 201, description: "The new name" }],
  }),
  remove({
    path: "/models/{name}",
    name: "removeModel",
    summary: "Remove a name, and with its last name the model",
    query: { force: flag("Also one that has several names, or runs") },
    answers: [{ description: "What was untagged and deleted", shape: "array" }],
  }),
  remove({
    path: "/models/purge",
    name: "purgeModels",
    summary: "Remove all models",
    answers: [NO_BODY],
  }),
  post({
    path: "/models/prune",
    name: "pruneModels",
    summary: "Remove what nothing refers to",
    request: "PruneRequest",
    isBodyOptional: true,
    answers: [{ description: "What went" }],
  }),
  post({
    path: "/models/verify",
    name: "verifyModels",
    summary: "Read all models again and compare their digests",
    answers: [PROGRESS],
  }),
];

const REGISTRIES: readonly Operation[] = [
  post({
    path: "/registries/login",
    name: "login",
    summary: "Remember who this user is towards a registry",
    request: "LoginRequest",
    answers: [{ description: "Who is logged in" }],
    failures: LOCAL_ONLY,
  }),
  post({
    path: "/registries/logout",
    name: "logout",
    summary: "Forget it",
    request: "LogoutRequest",
    answers: [{ description: "Who was logged in" }],
    failures: LOCAL_ONLY,
  }),
];

export const MODEL_OPERATIONS: readonly Operation[] = [
  ...READING,
  ...MOVING,
  ...CHANGING,
  ...REGISTRIES,
];
