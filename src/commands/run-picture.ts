/** `tug run` of a model that draws: a picture to a file, or to who reads stdout. */
import { isAbsolute } from "node:path";
import type { ChatMessage } from "../api/chat.ts";
import type { LoadRequest } from "../api/engines.ts";
import {
  drawPicture,
  type DrawRequest,
  formatOfFile,
  isDrawingModel,
  partsOf,
  type Picture,
  savePicture,
  writePicture,
} from "../chat/drawing.ts";
import type { ChatSettings } from "../chat/session.ts";
import type { Client } from "../client/client.ts";
import { AppError } from "../errors.ts";
import { printJson } from "../terminal/json.ts";
import { openOutput } from "../terminal/output.ts";
import { createProgress } from "../terminal/progress.ts";
import { loadModel } from "./load-model.ts";

export interface PictureRun {
  readonly client: Client;
  readonly model: string;
  readonly settings: ChatSettings;
  /** Undefined: only to be loaded. */
  readonly prompt: ChatMessage["content"] | undefined;
  /** As it was typed; `-` is stdout. */
  readonly output: string | undefined;
  readonly json: boolean;
  readonly signal: AbortSignal;
}

/** A model that nobody can look at writes. */
export async function drawsPictures(
  model: string,
  client: Pick<Client, "inspect">,
  signal: AbortSignal,
): Promise<boolean> {
  if (isAbsolute(model)) return false;
  const details = await client.inspect(model, { signal }).catch(() => undefined);
  return details !== undefined && isDrawingModel(details);
}

/** @throws usage (a file of another kind, or pictures for a terminal), and what loading and drawing throw */
export async function runPicture(run: PictureRun): Promise<number> {
  const { client, model, settings, prompt, output, json, signal } = run;
  const toStdout = output === "-" || (output === undefined && !process.stdout.isTTY && !json);
  if (output === "-" && process.stdout.isTTY) throw notForTerminal();
  const format = output === undefined || toStdout ? "png" : formatOfFile(output);
  const request = toDrawRequest(model, settings);
  await loadModel(client, toLoadRequest(request), { signal, quiet: json });
  if (prompt === undefined) return 0;
  const picture = await withNote(json, () =>
    drawPicture(client, { ...request, prompt, format }, { signal }),
  );
  if (toStdout) {
    await openOutput().write(picture.data);
    return 0;
  }
  const file = await save(picture, output, partsOf(prompt).text);
  if (json) await printJson({ model, file, seed: picture.seed, bytes: picture.data.byteLength });
  else process.stderr.write(`Drew ${file}\n`);
  return 0;
}

export function toDrawRequest(
  model: string,
  { parameters: { seed }, backend, keepAlive }: ChatSettings,
): Omit<DrawRequest, "prompt"> {
  return { model, seed, backend, keepAlive };
}

// --- internal ---

function toLoadRequest({ model, backend, keepAlive }: Omit<DrawRequest, "prompt">): LoadRequest {
  return {
    model,
    mode: "image-generation",
    ...(backend === undefined ? {} : { backend }),
    ...(keepAlive === undefined ? {} : { keep_alive: keepAlive }),
  };
}

async function save(picture: Picture, output: string | undefined, text: string): Promise<string> {
  if (output === undefined) return savePicture(picture, text);
  await writePicture(output, picture.data);
  return output;
}

async function withNote<T>(quiet: boolean, work: () => Promise<T>): Promise<T> {
  using progress = createProgress({ quiet: quiet || !process.stderr.isTTY, transient: true });
  progress.listener({
    type: "progress",
    id: "picture",
    phase: "drawing",
    done_bytes: null,
    total_bytes: null,
  });
  return await work();
}

function notForTerminal(): AppError {
  return new AppError("usage", "cannot write a picture to a terminal", {
    hint: "Pipe it to a program or a file, or name one with `--output FILE`.",
  });
}
