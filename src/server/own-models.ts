/** Models that engines of the user's own bring themselves: they have a name, and no files in the store. */
import { mkdir } from "node:fs/promises";
import type { Model, ModelDetails } from "../api/models.ts";
import { toAppError } from "../errors.ts";
import { digestOf } from "../oci/digest.ts";
import { encodeCanonical } from "../oci/manifest.ts";
import { formatReference, parseReference } from "../oci/reference.ts";
import type { RunnableModel } from "../runtime/backend.ts";
import { ownModelsFormat, type OwnModel } from "../runtime/custom-models.ts";

/** @throws usage (config.toml cannot be understood) */
export type ReadOwnModels = () => Promise<readonly OwnModel[]>;

/**
 * @param resolve asked first: a model of the store wins over one of its name
 * @param toFound what stands for one of an engine's own
 */
export function withOwnModels<Rest extends readonly unknown[], Found>(
  read: ReadOwnModels,
  resolve: (name: string, ...rest: Rest) => Promise<Found>,
  toFound: (model: OwnModel, name: string) => Found,
): (name: string, ...rest: Rest) => Promise<Found> {
  return async (name, ...rest) => {
    try {
      return await resolve(name, ...rest);
    } catch (thrown) {
      if (toAppError(thrown).code !== "model_not_found") throw thrown;
      const whole = name.startsWith("sha256:") ? name : formatReference(parseReference(name));
      const found = (await read()).find((model) => model.name === whole || idOf(model) === whole);
      if (found === undefined) throw thrown;
      return toFound(found, name);
    }
  };
}

/**
 * @param name it was asked for by
 * @param directory an empty one, made when it is needed: what engines are given where others get files
 */
export function toRunnable(model: OwnModel, name: string, directory: string): RunnableModel {
  const format = ownModelsFormat(model.engine);
  return {
    id: idOf(model),
    name,
    format,
    weightBytes: 0,
    async openBundle() {
      await mkdir(directory, { recursive: true });
      const dispose = { [Symbol.asyncDispose]: () => Promise.resolve() };
      return { directory, format, model: directory, weightBytes: 0, ...dispose };
    },
  };
}

/** As `GET /v1/models` and its relatives list it. */
export function toListed(model: OwnModel): Model {
  return {
    id: idOf(model),
    tags: [model.name],
    created: 0,
    config: {
      format: ownModelsFormat(model.engine),
      quantization: null,
      parameters: null,
      architecture: null,
      size: null,
      context_size: null,
      gguf: null,
    },
    size_bytes: 0,
  };
}

export function toInspected(model: OwnModel): ModelDetails {
  return {
    ...toListed(model),
    media_type: "",
    artifact_type: null,
    annotations: {},
    layers: [],
  };
}

// --- internal ---

function idOf({ engine, name }: OwnModel): string {
  return digestOf(encodeCanonical({ engine, name }));
}
