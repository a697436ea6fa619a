/** Pictures of a model that draws: asks for one, and writes it where a person finds it. */
import { open } from "node:fs/promises";
import { extname } from "node:path";
import type { ChatMessage } from "../api/chat.ts";
import type { ModelDetails } from "../api/models.ts";
import type { Client } from "../client/client.ts";
import { AppError, errnoOf } from "../errors.ts";

/** Words of a prompt in a file's name. Characters. */
const MAX_SLUG = 48;
/** Of pictures with the same words and the same seed. */
const MAX_NUMBERED = 1000;

const FORMATS: Readonly<Record<string, string>> = {
  ".png": "png",
  ".jpg": "jpeg",
  ".jpeg": "jpeg",
  ".webp": "webp",
};

export type DrawClient = Pick<Client, "call">;

export interface DrawRequest {
  readonly model: string;
  /** With a picture in it, that one is changed. */
  readonly prompt: ChatMessage["content"];
  readonly seed?: number | undefined;
  readonly backend?: string | undefined;
  readonly keepAlive?: string | number | undefined;
  /** `png` unless given. */
  readonly format?: string | undefined;
}

export interface Picture {
  readonly data: Uint8Array;
  /** With which it is drawn again; null: the engine does not say. */
  readonly seed: number | null;
}

/** Whether a model draws instead of writing. */
export function isDrawingModel({ config }: Pick<ModelDetails, "config">): boolean {
  return (
    config.format === "dduf" || config.format === "diffusers" || config.architecture === "diffusers"
  );
}

/** @throws what the other side says went wrong; worker_failed (there is no picture in its answer) */
export async function drawPicture(
  client: DrawClient,
  { model, prompt, seed, backend, keepAlive, format = "png" }: DrawRequest,
  { signal }: { readonly signal: AbortSignal },
): Promise<Picture> {
  const { text, picture } = partsOf(prompt);
  const engine = backend === undefined ? "" : `/${encodeURIComponent(backend)}`;
  const path = `/engines${engine}/v1/images/${picture === undefined ? "generations" : "edits"}`;
  const body = {
    model,
    prompt: text,
    response_format: "b64_json",
    output_format: format,
    ...(picture === undefined ? {} : { image: picture }),
    ...(seed === undefined || seed < 0 ? {} : { seed }),
    ...(keepAlive === undefined ? {} : { keep_alive: keepAlive }),
  };
  const response = await client.call("POST", path, { signal, body });
  const answer = (await response.json()) as {
    readonly data?: readonly { readonly b64_json?: string; readonly seed?: number }[];
  };
  const [first] = answer.data ?? [];
  if (typeof first?.b64_json !== "string") {
    throw new AppError("worker_failed", `cannot draw with \`${model}\`: no picture came`);
  }
  const told = typeof first.seed === "number" ? first.seed : null;
  return { data: Buffer.from(first.b64_json, "base64"), seed: told };
}

/** As `output_format` says it. @throws usage (another extension) */
export function formatOfFile(file: string): string {
  const format = FORMATS[extname(file).toLowerCase()];
  if (format !== undefined) return format;
  throw new AppError(
    "usage",
    `cannot draw to \`${file.slice(0, 200)}\`: its extension is no picture's`,
    {
      hint: "Name a .png, .jpg or .webp file.",
    },
  );
}

/** In the working directory, under a name of its own. @returns the name @throws what writing throws */
export async function savePicture({ data, seed }: Picture, prompt: string): Promise<string> {
  const stem = [slugOf(prompt), ...(seed === null ? [] : [String(seed)])].join("-");
  for (let number = 1; number <= MAX_NUMBERED; number += 1) {
    const name = number === 1 ? `${stem}.png` : `${stem}-${number}.png`;
    if (await tryWrite(name, data, "wx")) return name;
  }
  throw new AppError("conflict", `cannot save the picture: there are ${MAX_NUMBERED} of its name`, {
    hint: "Name a file with `--output FILE`.",
  });
}

/** Over what was there. */
export async function writePicture(file: string, data: Uint8Array): Promise<void> {
  await tryWrite(file, data, "w");
}

export function slugOf(prompt: string): string {
  const words = prompt
    .normalize("NFKD")
    .toLowerCase()
    .replaceAll(/\p{M}/gu, "")
    .replaceAll(/[^\p{L}\p{N}]+/gu, "-")
    .replaceAll(/^-+|-+$/g, "");
  const slug = Array.from(words).slice(0, MAX_SLUG).join("").replace(/-+$/, "");
  return slug === "" ? "picture" : slug;
}

/** What a person wrote, and the first picture in it. */
export function partsOf(content: ChatMessage["content"]): {
  readonly text: string;
  readonly picture: string | undefined;
} {
  if (typeof content === "string") return { text: content, picture: undefined };
  const texts = content.flatMap((part) => (part.type === "text" ? [part.text] : []));
  const pictures = content.flatMap((part) => (part.type === "text" ? [] : [part.image_url.url]));
  return { text: texts.join("\n\n"), picture: pictures[0] };
}

// --- internal ---

/** @returns false if there is such a file and it may not be replaced */
async function tryWrite(file: string, data: Uint8Array, flags: "w" | "wx"): Promise<boolean> {
  try {
    await using handle = await open(file, flags);
    await handle.writeFile(data);
    return true;
  } catch (error) {
    const code = errnoOf(error);
    if (code === "EEXIST" && flags === "wx") return false;
    const reason = code ?? (error as Error).message.slice(0, 200);
    throw new AppError("forbidden", `cannot write \`${file.slice(0, 200)}\`: ${reason}`, {
      hint: "Name another file with `--output FILE`.",
      cause: error,
    });
  }
}
