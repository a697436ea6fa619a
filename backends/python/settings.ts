/** Settings as Python engines are told them. Pure. */
import { join } from "node:path";

import { AppError } from "../../src/errors.ts";
import type { ArgsInput, WorkerSettings } from "../../src/runtime/backend.ts";

/** What is said of the cache where nobody says anything: these engines keep it in the model's own type then. */
const UNSAID = "f16";
const TRUST = "--trust-remote-code";

/** @throws invalid_request for a setting that an engine has nothing for */
export function refuse(engine: string, what: string, isSet: boolean): void {
  if (!isSet) return;
  throw new AppError(
    "invalid_request",
    `cannot start ${engine} with ${what}: it has nothing for it`,
    { hint: "Unset it with `tug configure MODEL --unset NAME`, or use another engine." },
  );
}

/** @throws usage unless it is positive and whole */
export function whole(what: string, value: number): string {
  if (Number.isSafeInteger(value) && value > 0) return String(value);
  throw new AppError("usage", `cannot use ${what} ${value}: it is out of range`, {
    hint: "Give a positive whole number.",
  });
}

/**
 * The template that is packaged, for engines that know only the one by the usual name.
 *
 * @returns undefined where it is that one, or there is none
 */
export function ownTemplate({ directory, chatTemplate }: ArgsInput["bundle"]): string | undefined {
  return chatTemplate === join(directory, "chat_template.jinja") ? undefined : chatTemplate;
}

/** The flag that lets code of the model run, unless the engine is told already. */
export function trustArgs(
  { trustsCode }: WorkerSettings,
  flags: readonly string[] = [],
): readonly string[] {
  return trustsCode === true && !flags.includes(TRUST) ? [TRUST] : [];
}

/** Numbers of the GPUs among devices, `cuda:1` and `rocm:1`, as their vendor's tool counts them. */
export function gpuIndexes(devices: readonly string[] = []): readonly number[] {
  return devices.flatMap((id) => {
    const found = /^(?:cuda|rocm):(\d{1,4})$/.exec(id);
    return found === null ? [] : [Number(found[1])];
  });
}

/**
 * The type of a cache that has one for keys and values.
 *
 * @returns undefined for the model's own
 * @throws invalid_request for one that is not known, or two
 */
export function oneCacheType(
  engine: string,
  { cacheTypeK, cacheTypeV }: WorkerSettings,
  known: readonly string[],
): string | undefined {
  const said = [cacheTypeK, cacheTypeV].filter((type) => type !== undefined && type !== UNSAID);
  const [type] = said;
  if (type === undefined) return undefined;
  if (said.every((one) => one === type) && known.includes(type)) {
    return type === "auto" ? undefined : type;
  }
  const shown = said.map((one) => `\`${String(one).slice(0, 40)}\``).join(" and ");
  throw new AppError("invalid_request", `cannot start ${engine} with the cache type ${shown}`, {
    hint: `Use one for keys and values, of ${known.join(", ")}.`,
  });
}
