/** Where other programs on this machine keep models. Pure: only paths are made here. */
import { join, posix, win32 } from "node:path";
import type { AdoptResult } from "../api/models.ts";

export type AdoptProgram = AdoptResult["files"][number]["program"];

export interface PlaceOptions {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** The user's home directory. */
  readonly home: string;
  readonly platform: NodeJS.Platform;
}

/** A directory, and how its files are told apart. */
export interface CachePlace {
  readonly program: AdoptProgram;
  readonly path: string;
  /**
   * `ollama`: `blobs/sha256-<hex>`. `huggingface`: `models--*\/blobs/<hex>`, and weights in `models--*\/snapshots` where there
   * are no symbolic links. `files`: weights by whatever names, at any depth.
   */
  readonly layout: "ollama" | "huggingface" | "files";
}

/** Where Ollama's own service on Linux has its home. */
const OLLAMA_SERVICE = "/usr/share/ollama/.ollama/models";

/**
 * In the order in which they are looked at: those first whose names say what is in them. A variable that is set replaces
 * the places that its program has by default; a relative path in one means nothing here.
 *
 * @see https://github.com/ollama/ollama/blob/main/docs/faq.md
 * @see https://huggingface.co/docs/huggingface_hub/guides/manage-cache
 * @see https://github.com/ggml-org/llama.cpp common/common.cpp `fs_get_cache_directory`
 */
export function cachePlaces(options: PlaceOptions): CachePlace[] {
  const { home } = options;
  const places: CachePlace[] = [
    ...ollama(options).map((path) => ({ program: "ollama", layout: "ollama", path }) as const),
    ...huggingFace(options).map(
      (path) => ({ program: "huggingface", layout: "huggingface", path }) as const,
    ),
    ...[join(home, ".lmstudio", "models"), join(home, ".cache", "lm-studio", "models")].map(
      (path) => ({ program: "lmstudio", layout: "files", path }) as const,
    ),
    ...llamaCpp(options).map((path) => ({ program: "llamacpp", layout: "files", path }) as const),
  ];
  return [...new Map(places.map((place) => [place.path, place])).values()];
}

// --- internal ---

function ollama(options: PlaceOptions): string[] {
  const { env, home, platform } = options;
  if (isSet(env["OLLAMA_MODELS"])) return named(env["OLLAMA_MODELS"], options);
  const own = join(home, ".ollama", "models");
  return platform === "linux" ? [own, OLLAMA_SERVICE] : [own];
}

function huggingFace(options: PlaceOptions): string[] {
  const { env, home } = options;
  const hub = [env["HF_HUB_CACHE"], env["HUGGINGFACE_HUB_CACHE"]].find(isSet);
  if (hub !== undefined) return named(hub, options);
  if (isSet(env["HF_HOME"])) return named(env["HF_HOME"], options).map((path) => join(path, "hub"));
  const caches = isSet(env["XDG_CACHE_HOME"])
    ? named(env["XDG_CACHE_HOME"], options)
    : [join(home, ".cache")];
  return caches.map((path) => join(path, "huggingface", "hub"));
}

function llamaCpp(options: PlaceOptions): string[] {
  const { env, home, platform } = options;
  if (isSet(env["LLAMA_CACHE"])) return named(env["LLAMA_CACHE"], options);
  if (platform === "darwin") return [join(home, "Library", "Caches", "llama.cpp")];
  const [variable, fallback] =
    platform === "win32"
      ? (["LOCALAPPDATA", join(home, "AppData", "Local")] as const)
      : (["XDG_CACHE_HOME", join(home, ".cache")] as const);
  const caches = isSet(env[variable]) ? named(env[variable], options) : [fallback];
  return caches.map((path) => join(path, "llama.cpp"));
}

function isSet(value: string | undefined): value is string {
  return value !== undefined && value.trim() !== "";
}

/** An absolute path, or one in the home directory by `~`. */
function named(value: string, { home, platform }: PlaceOptions): string[] {
  const path = value.trim().replace(/^~(?=[/\\]|$)/, () => home);
  const isAbsolute = platform === "win32" ? win32.isAbsolute(path) : posix.isAbsolute(path);
  return isAbsolute ? [path] : [];
}
