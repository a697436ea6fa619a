/**
 * Whether a model can do what is asked of it, before it is loaded: engines find out late, and some answer nonsense
 * instead of refusing. Pure.
 */
import { AppError } from "../errors.ts";
import type { ModelProfile } from "../models/capabilities.ts";
import { isRecord } from "../oci/descriptor.ts";
import type { Mode } from "../runtime/backend.ts";
import type { WorkerPlan } from "../runtime/planner.ts";

export interface SuitQuestion {
  readonly plan: Pick<WorkerPlan, "model" | "mode" | "settings" | "backend" | "enginePaths">;
  /** Of the engine; undefined: it is only to be loaded. */
  readonly path?: string | undefined;
  /** Undefined: nothing is known of the model, the engine is asked. */
  readonly profile: ModelProfile | undefined;
  readonly body: Readonly<Record<string, unknown>>;
}

/** @throws invalid_request saying what the model is for; not_supported where its engine has nothing for it */
export function requireSuited({ plan, path, profile, body }: SuitQuestion): void {
  requirePath(plan, path);
  // Of other formats only what they are made of is known, not what they were made for.
  if (profile === undefined || plan.model.format !== "gguf") return;
  const { name } = plan.model;
  const flags = plan.settings.runtimeFlags;
  const purpose = modeOf(profile);
  if (!servesMode(plan.mode, profile) && !names(flags, "--pooling")) {
    throw unsuited(name, `it is for ${PURPOSES[purpose]}, not for ${PURPOSES[plan.mode]}`, "model");
  }
  if (plan.mode !== "completion" || names(flags, "--mmproj")) return;
  const wanted = mediaOf(body["messages"]).find((one) => !profile.capabilities.includes(one));
  if (wanted === undefined) return;
  const kind = wanted === "vision" ? "images" : "audio";
  throw unsuited(name, `it takes no ${kind}`, "messages");
}

/** What a model was made for. */
export function modeOf(profile: ModelProfile | undefined): Mode {
  if (profile === undefined || profile.capabilities.includes("completion")) return "completion";
  return profile.capabilities.includes("embedding") ? "embedding" : "reranking";
}

// --- internal ---

function requirePath(
  { model, backend, enginePaths }: Pick<WorkerPlan, "model" | "backend" | "enginePaths">,
  path: string | undefined,
): void {
  if (path === undefined || enginePaths === undefined || enginePaths.includes(path)) return;
  const what = `cannot ask \`${model.name}\` for ${path}`;
  throw new AppError("not_supported", `${what}: its engine, ${backend}, has nothing for it`, {
    hint: `It answers on ${enginePaths.join(" and ")}.`,
  });
}

const PURPOSES: Readonly<Record<Mode, string>> = {
  completion: "chat",
  embedding: "embeddings",
  reranking: "reranking",
  "image-generation": "pictures",
};

function servesMode(mode: Mode, profile: ModelProfile): boolean {
  const purpose = modeOf(profile);
  if (mode === purpose) return true;
  // Files of rerankers that are older than their pooling type look like encoders that do not say how they pool.
  return mode === "reranking" && purpose === "embedding" && !saysPooling(profile);
}

function saysPooling({ info }: ModelProfile): boolean {
  const architecture = info["general.architecture"];
  return typeof info[`${String(architecture)}.pooling_type`] === "number";
}

function names(flags: readonly string[], flag: string): boolean {
  return flags.some((word) => word === flag || word.startsWith(`${flag}=`));
}

const MEDIA: Readonly<Record<string, "vision" | "audio">> = {
  image_url: "vision",
  input_image: "vision",
  input_audio: "audio",
};

function mediaOf(messages: unknown): ("vision" | "audio")[] {
  if (!Array.isArray(messages)) return [];
  const found = new Set<"vision" | "audio">();
  for (const message of messages) {
    const parts: unknown = isRecord(message) ? message["content"] : undefined;
    if (!Array.isArray(parts)) continue;
    for (const part of parts) {
      const medium = isRecord(part) ? MEDIA[String(part["type"])] : undefined;
      if (medium !== undefined) found.add(medium);
    }
  }
  return [...found];
}

function unsuited(name: string, reason: string, param: string): AppError {
  return new AppError("invalid_request", `cannot answer with \`${name}\`: ${reason}`, {
    hint: "Use another model; `tug list` shows which there are.",
    details: { param },
  });
}
