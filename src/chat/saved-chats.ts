/** Conversations on disk: `<directory>/<name>.json`, readable by the owner only, replaced as a whole. */
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { ContentPart } from "../api/chat.ts";
import { AppError, errnoOf } from "../errors.ts";
import type { SamplingParameters, Session, Turn } from "./session.ts";

/** Images are inside as base64; past this it is no conversation of ours. */
const FILE_LIMIT = 512 * 1024 * 1024;
const SUFFIX = ".json";
const VERSION = 1;

/** What is kept of a session. */
export interface SavedChat {
  readonly model: string;
  readonly system: string | undefined;
  readonly parameters: SamplingParameters;
  readonly turns: readonly Turn[];
}

/**
 * @param name as `/save` accepts it: no path separators
 * @returns where a chat that had this name is now, or undefined if there was none
 */
export async function saveChat(
  directory: string,
  name: string,
  session: Session,
): Promise<string | undefined> {
  const { system, parameters } = session.settings;
  const { model, turns } = session;
  const chat = { version: VERSION, model, system: system ?? null, parameters, turns };
  const path = join(directory, name + SUFFIX);
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    await writeFile(temporary, `${JSON.stringify(chat, null, 2)}\n`, { mode: 0o600 });
    const kept = (await Bun.file(path).exists()) ? `${path}~` : undefined;
    if (kept !== undefined) await rename(path, kept);
    await rename(temporary, path);
    return kept;
  } catch (cause) {
    await rm(temporary, { force: true }).catch(() => {});
    throw new AppError("internal", `cannot save chat \`${name}\`: ${(cause as Error).message}`, {
      hint: `Check that \`${directory}\` can be written.`,
      cause,
    });
  }
}

/** @throws not_found · invalid_request (the file is not a saved chat) */
export async function loadChat(directory: string, name: string): Promise<SavedChat> {
  const path = join(directory, name + SUFFIX);
  let text: string;
  try {
    if ((await stat(path)).size > FILE_LIMIT) throw notAChat(name, path);
    text = await readFile(path, "utf8");
  } catch (cause) {
    if (cause instanceof AppError) throw cause;
    if (errnoOf(cause) === "ENOENT") {
      throw new AppError("not_found", `cannot load chat \`${name}\`: there is none of that name`, {
        hint: "Type /load for the names of saved chats.",
        cause,
      });
    }
    throw new AppError("internal", `cannot load chat \`${name}\`: ${(cause as Error).message}`, {
      cause,
    });
  }
  const chat = decodeChat(text);
  if (chat === undefined) throw notAChat(name, path);
  return chat;
}

/** Names, sorted. */
export async function listChats(directory: string): Promise<string[]> {
  try {
    const files = await readdir(directory);
    return files
      .filter((file) => file.endsWith(SUFFIX))
      .map((file) => file.slice(0, -SUFFIX.length))
      .toSorted();
  } catch {
    return [];
  }
}

// --- internal ---

function notAChat(name: string, path: string): AppError {
  return new AppError("invalid_request", `cannot load chat \`${name}\`: the file is damaged`, {
    hint: `Look at \`${path}\`, or remove it.`,
  });
}

function decodeChat(text: string): SavedChat | undefined {
  const value = tryParse(text);
  if (!isObject(value) || value["version"] !== VERSION) return undefined;
  const { model, system, parameters, turns } = value;
  if (typeof model !== "string" || !(system === null || typeof system === "string"))
    return undefined;
  if (!isObject(parameters) || !Object.values(parameters).every(isParameter)) return undefined;
  if (!Array.isArray(turns) || !turns.every(isTurn)) return undefined;
  return { model, system: system ?? undefined, parameters, turns };
}

function tryParse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isParameter(value: unknown): boolean {
  return typeof value === "number" || (Array.isArray(value) && value.every(isString));
}

function isString(value: unknown): value is string {
  return typeof value === "string";
}

function isTurn(value: unknown): value is Turn {
  if (!isObject(value) || !isString(value["answer"])) return false;
  const { question } = value;
  return isString(question) || (Array.isArray(question) && question.every(isPart));
}

function isPart(value: unknown): value is ContentPart {
  if (!isObject(value)) return false;
  if (value["type"] === "text") return isString(value["text"]);
  return (
    value["type"] === "image_url" &&
    isObject(value["image_url"]) &&
    isString(value["image_url"]["url"])
  );
}
