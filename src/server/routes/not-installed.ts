/** OpenAI's routes for which there is no engine: they say so, in the shape that its clients read. */
import type { Hono } from "hono";
import { AppError } from "../../errors.ts";
import type { AppEnv } from "../deps.ts";
import { engineOf, V1_PREFIXES } from "./engine-paths.ts";

interface Missing {
  /** `cannot …` */
  readonly task: string;
  /** What kind of engine would do it. */
  readonly engine: string;
}

const VARIATIONS: Missing = { task: "vary images", engine: "stable-diffusion.cpp" };
const SPEECH: Missing = { task: "speak", engine: "Kokoro or Piper" };
const HEARING: Missing = { task: "transcribe audio", engine: "whisper.cpp" };

export const MISSING: Readonly<Record<string, Missing>> = {
  "/images/variations": VARIATIONS,
  "/audio/transcriptions": HEARING,
  "/audio/translations": HEARING,
  "/audio/speech": SPEECH,
};

/** Their bodies are not read: whatever comes is let go of. */
export function addNotInstalledRoutes(app: Hono<AppEnv>): void {
  for (const prefix of V1_PREFIXES) {
    for (const [path, { task, engine }] of Object.entries(MISSING)) {
      app.post(`${prefix}${path}`, async (c) => {
        await engineOf(c);
        throw new AppError("not_supported", `cannot ${task}: no engine for it is installed`, {
          hint: `Use a server with an engine such as ${engine}; Tug has none of these yet.`,
        });
      });
    }
  }
}
