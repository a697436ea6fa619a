/** Code that comes with a model runs only where the owner of the machine said so. Pure. */
import { AppError } from "../errors.ts";
import { PYTORCH } from "../oci/media-types.ts";
import type { Backend, ModelTraits, RunnableModel } from "./backend.ts";
import type { ResolvedSettings } from "./plan-settings.ts";

export interface TrustFacts {
  readonly model: Pick<RunnableModel, "name" | "format">;
  readonly traits: ModelTraits | undefined;
  readonly backend: Pick<Backend, "name" | "needsCode">;
  readonly resolved: Pick<ResolvedSettings, "effective" | "flags">;
}

/** The flag of engines that says the same as the setting. */
const TRUST_FLAG = "--trust-remote-code";

/** @throws forbidden before anything is loaded, with how to allow it */
export function requireTrust({ model, traits, backend, resolved }: TrustFacts): void {
  const { effective, flags } = resolved;
  const what = `cannot run \`${model.name}\``;
  if (model.format === PYTORCH && effective.allow_pickle?.value !== true) {
    throw new AppError(
      "forbidden",
      `${what}: its weights are pickles, which can run code when they are opened`,
      {
        hint: `Take the same model as safetensors (\`save_pretrained\` of transformers writes them), or, if you trust whoever made it, allow it with \`tug configure ${model.name} --allow-pickle\`.`,
        details: { setting: "allow_pickle" },
      },
    );
  }
  const needsCode = traits !== undefined && backend.needsCode?.(traits) === true;
  const isTrusted = effective.trust_remote_code?.value === true || flags.includes(TRUST_FLAG);
  if (!needsCode || isTrusted) return;
  throw new AppError(
    "forbidden",
    `${what}: it comes with Python code of its own (trust_remote_code), which ${backend.name} would run`,
    {
      hint: `Use a model whose architecture the engine knows, or the same one as GGUF; or, if you trust whoever made it, allow it with \`tug configure ${model.name} --trust-remote-code\`.`,
      details: { setting: "trust_remote_code", engine: backend.name },
    },
  );
}
