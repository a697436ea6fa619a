/** What the environment tells Hugging Face's own tools, and what these leave in the home directory. */
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { AppError } from "../errors.ts";

const DEFAULT_ENDPOINT = "https://huggingface.co";
/** Tokens have 37 characters, those of single sign-on some hundred. Bytes. */
const MAX_TOKEN_BYTES = 8192;

type Env = Readonly<Record<string, string | undefined>>;

/**
 * The token that Hugging Face's tools would use: `HF_TOKEN`, `HUGGING_FACE_HUB_TOKEN`, then the file that `hf auth login`
 * writes: `HF_TOKEN_PATH`, `$HF_HOME/token`, or `huggingface/token` in the cache directory of the XDG specification.
 *
 * @returns undefined if there is none; a file that cannot be read is none
 * @throws usage if what is set is no token. The message never shows it
 * @see https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables
 */
export function findHuggingFaceToken(options: {
  readonly env: Env;
  /** The home directory. */
  readonly home: string;
}): string | undefined {
  const { env, home } = options;
  for (const name of ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]) {
    const value = env[name]?.trim();
    if (value !== undefined && value !== "") return checkToken(value, name);
  }
  const path = tokenPath(env, home);
  const text = readSmallFile(path);
  return text === undefined || text === "" ? undefined : checkToken(text, `\`${path}\``);
}

/** A header carries it, so it is one word of printable ASCII. */
export function isToken(text: string): boolean {
  return /^[\x21-\x7e]+$/.test(text) && text.length <= MAX_TOKEN_BYTES;
}

/**
 * `HF_ENDPOINT`, or the Hub itself. Without a slash at its end.
 *
 * @throws usage if it is no http address
 */
export function findHuggingFaceEndpoint(env: Env): string {
  return parseEndpoint(env["HF_ENDPOINT"]?.trim() || DEFAULT_ENDPOINT);
}

// --- internal ---

function tokenPath(env: Env, home: string): string {
  if (env["HF_TOKEN_PATH"]) return expandHome(env["HF_TOKEN_PATH"], home);
  if (env["HF_HOME"]) return join(expandHome(env["HF_HOME"], home), "token");
  return join(env["XDG_CACHE_HOME"] || join(home, ".cache"), "huggingface", "token");
}

function expandHome(path: string, home: string): string {
  return path === "~" || path.startsWith("~/") ? join(home, path.slice(1)) : path;
}

/** Only regular files: reading a pipe would wait for ever. */
function readSmallFile(path: string): string | undefined {
  try {
    const found = statSync(path);
    if (!found.isFile() || found.size > MAX_TOKEN_BYTES) return undefined;
    return readFileSync(path, "utf8").trim();
  } catch {
    // Without a token, public models can be had all the same.
    return undefined;
  }
}

function checkToken(token: string, where: string): string {
  if (isToken(token)) return token;
  throw new AppError("usage", `cannot use the Hugging Face token in ${where}: it is no token`, {
    hint: "Set it to a token from https://huggingface.co/settings/tokens, without spaces.",
  });
}

function parseEndpoint(text: string): string {
  const url = URL.parse(text);
  const isPlain = url?.username === "" && url.search === "" && url.hash === "";
  if (url !== null && isPlain && /^https?:$/.test(url.protocol)) {
    return `${url.origin}${url.pathname.replace(/\/+$/, "")}`;
  }
  throw new AppError("usage", "cannot use HF_ENDPOINT: it is not the address of a server", {
    hint: `Set it to an address such as \`${DEFAULT_ENDPOINT}\`, or unset it.`,
  });
}
