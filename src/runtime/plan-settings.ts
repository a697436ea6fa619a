/** From the places where a model's settings can be said to the one value of each that holds. Pure. */
import type { ExplainedSetting, ModelSettings } from "../api/settings.ts";
import type { Config } from "../config.ts";
import { AppError } from "../errors.ts";
import type { PackagedDefaults } from "../oci/model-defaults.ts";
import type { Backend, FlagMemory, Mode, RunnableModel } from "./backend.ts";
import type { RequestDefaults } from "./planner.ts";
import {
  checkSettings,
  type EffectiveSettings,
  type Layer,
  mergeLayers,
  PROCESS_SETTINGS,
  SAMPLING,
  SETTING_NAMES,
  type Sourced,
} from "./settings.ts";

/** The source of what whoever asks says himself. */
export const REQUEST = "request";

/** What is stored for a model. */
export interface StoredLayers {
  /** What is to be stored with it, if all goes well. */
  readonly change?: ModelSettings | undefined;
  /** Whether the change is for the mode in question, or for all. */
  readonly isForMode?: boolean | undefined;
  /** For all modes. */
  readonly all?: ModelSettings | undefined;
  /** For the mode in question. */
  readonly mode?: ModelSettings | undefined;
}

export type PlannerConfig = Pick<Config, "contextSize" | "keepAliveMs"> &
  Partial<Pick<Config, "rpcServers">>;

export interface SettingSources {
  readonly model: Pick<RunnableModel, "name" | "defaults" | "contextTokens">;
  readonly mode: Mode;
  readonly request?: ModelSettings | undefined;
  /** Whether the request may name files. */
  readonly trusted: boolean;
  readonly stored: StoredLayers;
  /** Of `[models."NAME"]`, as it stands in the file. */
  readonly configured: Readonly<Record<string, unknown>> | undefined;
  readonly config: PlannerConfig;
}

export interface ResolvedSettings {
  readonly effective: EffectiveSettings;
  /** For the engine, without what a setting says. */
  readonly flags: readonly string[];
  readonly files: readonly string[];
  readonly stretchesContext: boolean;
  /** What the flags change of it. */
  readonly memory: FlagMemory;
  /** The request changes nothing about the process. */
  readonly isUsual: boolean;
  /** Neither what is stored nor what is configured says what the context is to be. */
  readonly takesLargerContext: boolean;
  /** For models for which nothing else says it: at most the model's own. Undefined: the largest that fits. */
  readonly usualContext: { readonly tokens: number; readonly source: string } | undefined;
}

/** @throws invalid_request (a flag or value that this engine does not take, or two that contradict), forbidden, usage */
export function resolveSettings(sources: SettingSources, backend: Backend): ResolvedSettings {
  const { config } = sources;
  const layers = [
    foldFlags({ source: REQUEST, settings: sources.request ?? {} }, backend, sources.trusted),
    ...storedLayers(sources).map((layer) => foldFlags(layer, backend, true)),
    { source: "packaged", settings: packagedSettings(sources.model) },
    foldFlags(configuredLayer(sources), backend, true),
  ];
  const effective = mergeLayers(layers);
  checkCacheTypes(effective, backend);
  const said = effective.context_size;
  const usualContext =
    config.contextSize.value > 0
      ? { tokens: config.contextSize.value, source: config.contextSize.source }
      : undefined;
  const flags = effective.runtime_flags?.value ?? [];
  const read = readFlags(backend, flags, true);
  return {
    effective,
    flags,
    files: read?.files ?? [],
    stretchesContext: read?.stretchesContext ?? false,
    memory: read?.memory ?? {},
    isUsual: isSameProcess(effective, mergeLayers(layers.slice(1))),
    takesLargerContext: said === undefined ? usualContext === undefined : said.source === REQUEST,
    usualContext,
  };
}

/**
 * Settings as they are kept: flags that say a setting have become that setting.
 *
 * @throws invalid_request, forbidden
 */
export function foldFlags(layer: Layer, backend: Backend, allowPaths: boolean): Layer {
  const { runtime_flags: flags, ...typed } = layer.settings;
  if (layer.settings.lora !== undefined && !allowPaths) throw pathsRefused("lora");
  if (!allowPaths) refuseTrust(layer.settings);
  if (flags === undefined || flags.length === 0) return { ...layer, settings: typed };
  const read = readFlags(backend, flags, allowPaths);
  if (read === undefined) {
    throw new AppError("invalid_request", `cannot use runtime flags: ${backend.name} takes none`, {
      hint: "Leave them out.",
    });
  }
  for (const [name, value] of Object.entries(read.settings)) {
    const said = (typed as Readonly<Record<string, unknown>>)[name];
    if (said !== undefined && JSON.stringify(said) !== JSON.stringify(value)) {
      throw new AppError(
        "invalid_request",
        `cannot use the runtime flags: they set \`${name}\` otherwise than the setting of that name`,
        { hint: "Say it in one of the two places." },
      );
    }
  }
  const left = read.flags.length === 0 ? {} : { runtime_flags: read.flags };
  return { ...layer, settings: { ...read.settings, ...typed, ...left } };
}

/** What requests get: everything about sampling, whoever says it. */
export function requestDefaults(
  effective: EffectiveSettings,
  packaged: PackagedDefaults | undefined,
): RequestDefaults {
  const sampling = SAMPLING.flatMap((name) => {
    const said = effective[name];
    return said === undefined ? [] : [[name, said.value] as const];
  });
  return {
    system: effective.system?.value,
    think: effective.think?.value,
    messages: packaged?.messages,
    parameters: { ...packaged?.parameters, ...Object.fromEntries(sampling) },
  };
}

/** In a message: nobody needs to be told what he has just said himself. */
export function sourceOf({ source }: Sourced<unknown>): string {
  return source === REQUEST ? "" : ` (${source})`;
}

/** Parameters that a package says and that are no settings, such as `stop`. */
export function packagedExtras(
  packaged: PackagedDefaults | undefined,
): readonly ExplainedSetting[] {
  const known: ReadonlySet<string> = new Set(SAMPLING);
  return Object.entries(packaged?.parameters ?? {})
    .filter(([name]) => !known.has(name))
    .map(([name, value]) => ({ name, value, source: "packaged" }));
}

// --- internal ---

/** The strongest first; what is to be stored is above what it would be stored with. */
function storedLayers(sources: SettingSources): readonly Layer[] {
  const { mode, stored } = sources;
  const change = { source: REQUEST, settings: stored.change ?? {} };
  const forMode = { source: `stored for ${mode}`, settings: knownOf(stored.mode, sources) };
  const forAll = { source: "stored", settings: knownOf(stored.all, sources) };
  return stored.isForMode === true ? [change, forMode, forAll] : [forMode, change, forAll];
}

function isSameProcess(one: EffectiveSettings, other: EffectiveSettings): boolean {
  return PROCESS_SETTINGS.every(
    (name) => JSON.stringify(one[name]?.value) === JSON.stringify(other[name]?.value),
  );
}

/** A newer Tug may have stored what this one does not know; what it does know must be right. */
function knownOf(settings: ModelSettings = {}, { model }: SettingSources): ModelSettings {
  const names: ReadonlySet<string> = new Set(SETTING_NAMES);
  const entries = Object.entries(settings).filter(([name]) => names.has(name));
  return checkSettings(
    Object.fromEntries(entries),
    `cannot use what is stored for \`${model.name}\``,
  );
}

function checkCacheTypes(effective: EffectiveSettings, { name, cacheTypes = [] }: Backend): void {
  for (const said of [effective.cache_type_k, effective.cache_type_v]) {
    if (said === undefined || cacheTypes.includes(said.value)) continue;
    throw new AppError(
      "invalid_request",
      `cannot use the cache type \`${said.value}\`${sourceOf(said)}: ${name} does not know it`,
      {
        hint: cacheTypes.length === 0 ? undefined : `Use one of ${cacheTypes.join(", ")}.`,
      },
    );
  }
}

function packagedSettings({ defaults, contextTokens }: SettingSources["model"]): ModelSettings {
  const parameters = defaults?.parameters ?? {};
  const sampling = SAMPLING.filter((name) => typeof parameters[name] === "number");
  return {
    ...Object.fromEntries(sampling.map((name) => [name, parameters[name]])),
    ...(defaults?.system === undefined ? {} : { system: defaults.system }),
    ...(contextTokens === undefined ? {} : { context_size: contextTokens }),
  };
}

function configuredLayer({ configured, model }: SettingSources): Layer {
  const source = "config.toml";
  if (configured === undefined) return { source, settings: {} };
  const where = `cannot read the settings of \`${model.name}\` in config.toml`;
  return { source, settings: checkSettings(spellOut(configured), where) };
}

/** In TOML a keep-alive may be a number of seconds, as it may in requests. */
function spellOut(table: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  const keepAlive = table["keep_alive"];
  return typeof keepAlive === "number" ? { ...table, keep_alive: String(keepAlive) } : table;
}

function readFlags(backend: Backend, flags: readonly string[], allowPaths: boolean) {
  return backend.readFlags?.(flags, { allowPaths });
}

/** Whoever may let code run on this machine owns it. */
function refuseTrust(settings: ModelSettings): void {
  const name = (["trust_remote_code", "allow_pickle"] as const).find(
    (one) => settings[one] === true,
  );
  if (name === undefined) return;
  throw new AppError(
    "forbidden",
    `cannot set \`${name}\`: only the owner lets a model's code run`,
    {
      hint: "Set it with `tug configure` on the runner's own machine.",
    },
  );
}

function pathsRefused(name: string): AppError {
  return new AppError("forbidden", `cannot set \`${name}\`: files are named only by their owner`, {
    hint: "Set it with `tug configure` on the runner's own machine.",
  });
}
