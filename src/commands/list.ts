import type { Model } from "../api/models.ts";
import { connect } from "../client/connect.ts";
import { AppError } from "../errors.ts";
import {
  displayReference,
  formatReference,
  looksLikeId,
  parseReference,
} from "../oci/reference.ts";
import { formatAge, formatBytes } from "../terminal/bytes.ts";
import { printJson } from "../terminal/json.ts";
import { print } from "../terminal/output.ts";
import { stripControls } from "../terminal/style.ts";
import { JSON_FLAG, defineCommand } from "./command.ts";

const HEADERS = [
  "MODEL NAME",
  "PARAMETERS",
  "QUANTIZATION",
  "ARCHITECTURE",
  "MODEL ID",
  "CREATED",
  "CONTEXT",
  "SIZE",
];

export const command = defineCommand({
  args: {
    model: {
      type: "positional",
      required: false,
      description: "Only models of this name, or name and tag",
    },
    json: JSON_FLAG,
    openai: { type: "boolean", description: "Print the OpenAI form of the list" },
    quiet: { type: "boolean", alias: "q", description: "Print ids only, one a line" },
  },
  async run({ args, config, paths, signal }) {
    if (args.openai === true && args.quiet === true) {
      throw new AppError("usage", "`--openai` and `--quiet` exclude each other", {
        hint: "Give one of them.",
      });
    }
    const client = await connect("models", { config, paths, signal });
    const models = filterModels(await client.listModels({ signal }), args.model);
    if (args.openai === true) return printJson(toOpenAiList(models));
    if (args.json === true) return printJson(models);
    if (args.quiet === true) return print(models.map(({ id }) => `${shortId(id)}\n`).join(""));
    const { renderTable } = await import("../terminal/table.ts");
    await print(renderTable(HEADERS, models.flatMap(toRows)));
  },
});

/**
 * `smollm2` keeps every tag of that model, `smollm2:latest` one, an id or the beginning of one that model. A name without a
 * registry that is not in Docker Hub's namespace is looked for in the others, as far as it is written out.
 */
export function filterModels(models: readonly Model[], name: string | undefined): Model[] {
  if (name === undefined) return [...models];
  if (looksLikeId(name)) {
    const prefix = name.startsWith("sha256:") ? name : `sha256:${name}`;
    const found = models.filter(({ id }) => id.startsWith(prefix));
    if (found.length > 0) return found;
  }
  const { digest, ...wanted } = parseReference(name);
  if (digest !== undefined) return models.filter(({ id }) => id === digest);
  const full = formatReference(wanted);
  const exact = withTags(models, (tag) => isNamed(tag, full, name));
  if (exact.length > 0) return exact;
  const typed = name
    .trim()
    .toLowerCase()
    .replace(/:[^/]*$/, "");
  return withTags(models, (tag) => {
    const isSameTag = !hasTag(name) || tag.endsWith(`:${wanted.tag}`);
    return isSameTag && `/${repositoryOf(tag)}`.endsWith(`/${typed}`);
  });
}

/** The first 12 hex digits, as `docker` shows ids. */
export function shortId(id: string): string {
  return id.replace(/^sha256:/, "").slice(0, 12);
}

// --- internal ---

function toRows(model: Model): string[][] {
  const names = model.tags.length === 0 ? ["<none>"] : model.tags.map(displayReference);
  const { parameters, quantization, architecture, context_size: context } = model.config;
  return names.map((name) => [
    name,
    stripControls(parameters ?? ""),
    stripControls(quantization ?? ""),
    stripControls(architecture ?? ""),
    shortId(model.id),
    // Reproducible packaging dates everything to the epoch, which says nothing about age.
    model.created <= 0 ? "-" : formatAge(model.created * 1000),
    context === null ? "" : String(context),
    formatBytes(model.size_bytes),
  ]);
}

function toOpenAiList(models: readonly Model[]): unknown {
  const data = models.map((model) => ({
    id: model.tags[0] ?? model.id,
    object: "model",
    created: model.created,
    owned_by: "docker",
    dmr: {
      context_window: model.config.context_size,
      architecture: model.config.architecture,
      parameters: model.config.parameters,
      quantization: model.config.quantization,
      size: model.config.size,
    },
  }));
  return { object: "list", data };
}

function withTags(models: readonly Model[], matches: (tag: string) => boolean): Model[] {
  return models
    .map((model) => ({ ...model, tags: model.tags.filter(matches) }))
    .filter(({ tags }) => tags.length > 0);
}

function isNamed(tag: string, full: string, typed: string): boolean {
  return hasTag(typed) ? tag === full : repositoryOf(tag) === repositoryOf(full);
}

function hasTag(name: string): boolean {
  return /:[^/]+$/.test(name);
}

function repositoryOf(name: string): string {
  const colon = name.lastIndexOf(":");
  return colon > name.lastIndexOf("/") ? name.slice(0, colon) : name;
}
