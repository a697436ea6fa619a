/** Pulls a model that is not here, for commands that want to use it. */
import { isAbsolute } from "node:path";
import type { Client } from "../client/client.ts";
import { connect, type ConnectOptions } from "../client/connect.ts";
import { AppError } from "../errors.ts";
import { stripControls } from "../terminal/style.ts";
import { FETCHED_IS_KEPT, withTransferProgress } from "./transfer.ts";

/**
 * @param model a name, an address that `pull` understands, or the absolute path of a file, which is left alone
 * @returns the name by which the model can be used now
 * @throws what pulling throws
 */
export async function ensureModel(
  model: string,
  client: Client,
  { quiet, ...connection }: ConnectOptions & { readonly quiet: boolean },
): Promise<string> {
  const { signal } = connection;
  if (isAbsolute(model) || (await isHere(model, client, signal))) return model;
  const tell = quiet
    ? () => {}
    : onlyOnce(`${stripControls(model)} is not here yet: pulling it.\n`);
  const puller = await connect("transfer", connection);
  const result = await withTransferProgress(
    { quiet, kept: FETCHED_IS_KEPT },
    async (onProgress) => {
      const told: typeof onProgress = (event) => {
        tell();
        onProgress(event);
      };
      try {
        return await puller.pull({ from: model }, { signal, onProgress: told });
      } catch (error) {
        // What went wrong may be about a registry, of which nobody has spoken.
        tell();
        throw error;
      }
    },
  );
  return result.reference;
}

// --- internal ---

/** On stderr. What needs no fetching, as the built-in model, is not worth a word. */
function onlyOnce(text: string): () => void {
  let isSaid = false;
  return () => {
    if (!isSaid) process.stderr.write(text);
    isSaid = true;
  };
}

async function isHere(model: string, client: Client, signal: AbortSignal): Promise<boolean> {
  try {
    await client.inspect(model, { signal });
    return true;
  } catch (error) {
    if (error instanceof AppError && ABSENT.has(error.code)) return false;
    throw error;
  }
}

/** An address is no name of a model that is here. */
const ABSENT: ReadonlySet<string> = new Set(["model_not_found", "invalid_reference"]);
