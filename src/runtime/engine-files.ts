/** Whether everything an engine is about to open is there: what it says itself of a missing file is seldom clear. */
import { access, constants } from "node:fs/promises";
import { isAbsolute } from "node:path";
import { AppError, errnoOf } from "../errors.ts";
import { splitNames } from "../store/gguf.ts";
import type { Bundle, Installation, WorkerSettings } from "./backend.ts";

export interface EngineFiles {
  /** For messages. */
  readonly modelName: string;
  readonly installation: Installation;
  /** The model's, and the draft model's. */
  readonly bundles: readonly Bundle[];
  readonly settings: WorkerSettings;
}

/** @throws worker_failed for the engine's program, model_not_found for a file of the model, each by its path */
export async function assertFilesExist(files: EngineFiles): Promise<void> {
  const { modelName, installation, bundles, settings } = files;
  const [program = "", ...words] = installation.command;
  const isRunnable = (await problemOf(program, constants.X_OK)) === undefined;
  if (!isRunnable) throw engineBroken(modelName, installation.backend, program);
  for (const path of words.filter((word) => isAbsolute(word))) {
    if ((await problemOf(path, constants.R_OK)) === undefined) continue;
    throw engineBroken(modelName, installation.backend, path);
  }
  const named = [...(settings.adapters ?? []), ...(settings.files ?? [])];
  for (const path of [...bundles.flatMap(bundleFiles), ...named]) {
    const problem = await problemOf(path, constants.R_OK);
    if (problem !== undefined) throw modelBroken(modelName, path, problem);
  }
}

/** What an engine is given of a bundle, shards that it finds itself included. */
export function bundleFiles({
  format,
  model,
  mmproj,
  chatTemplate,
  adapters,
}: Bundle): readonly string[] {
  const weights = format === "gguf" ? splitNames(model) : [model];
  const others = [mmproj, chatTemplate, ...(adapters ?? [])];
  return [...weights, ...others.filter((path) => path !== undefined)];
}

// --- internal ---

/** The system's word for what is wrong, or undefined. */
async function problemOf(path: string, mode: number): Promise<string | undefined> {
  try {
    await access(path, mode);
    return undefined;
  } catch (error) {
    return errnoOf(error) ?? "unknown error";
  }
}

function engineBroken(modelName: string, backend: string, path: string): AppError {
  const reason = `${backend}'s program \`${path}\` cannot be executed`;
  return new AppError("worker_failed", `cannot load \`${modelName}\`: ${reason}`, {
    hint: `Install the engine again with \`tug install-runner --backend ${backend}\`.`,
    details: { backend, path },
  });
}

function modelBroken(modelName: string, path: string, problem: string): AppError {
  const isGone = problem === "ENOENT";
  return new AppError(
    isGone ? "model_not_found" : "forbidden",
    `cannot load \`${modelName}\`: its file \`${path}\` ${isGone ? "is gone" : `cannot be read (${problem})`}`,
    {
      hint: "Get the model again with `tug pull`, or name the file where it is now.",
      details: { path },
    },
  );
}
