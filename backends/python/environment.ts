/** Variables of every Python engine: it fetches nothing, reports to nobody, and writes beside its socket only. */
import { dirname, join } from "node:path";

export function pythonEnvironment(socket: string): Readonly<Record<string, string>> {
  const own = dirname(socket);
  return {
    HF_HUB_OFFLINE: "1",
    TRANSFORMERS_OFFLINE: "1",
    HF_HUB_DISABLE_TELEMETRY: "1",
    DO_NOT_TRACK: "1",
    HF_HOME: join(own, "huggingface"),
    XDG_CACHE_HOME: join(own, "cache"),
    PYTHONUNBUFFERED: "1",
    PYTHONDONTWRITEBYTECODE: "1",
    PYTHONNOUSERSITE: "1",
    TOKENIZERS_PARALLELISM: "false",
  };
}
