/** Pulls models that are container images: the container engine fetches them, the store gets a record. */
import { findContainerEngine, type ContainerEngine } from "../container/engine.ts";
import { type ImageFacts, inspectImage, pullImage, removeImage } from "../container/images.ts";
import { AppError } from "../errors.ts";
import { isLoopback } from "../http/host.ts";
import { log } from "../log.ts";
import { formatReference, parseReference, type Reference } from "../oci/reference.ts";
import type { Credential } from "../oci/credentials.ts";
import type { Store, StoredModel } from "../store/store.ts";
import { findComplete, notHereOffline, outdatedOffline } from "./complete.ts";
import {
  encodeImage,
  type ImageRecord,
  isImageModel,
  isImageName,
  readImage,
} from "./image-record.ts";
import type { Pulled, PullContext } from "./pull.ts";

export interface ImageRequest {
  readonly reference: Reference;
  /** `os/arch[/variant]` */
  readonly platform?: string | undefined;
}

export interface ImageSettings {
  /** Beginnings of names that are images, besides NVIDIA's. */
  readonly prefixes: readonly string[];
  /** For the container engine: `PATH`, `TUG_CONTAINER_ENGINE`, … and `NGC_API_KEY`. */
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** NVIDIA's registry: any key of an account, with this name. @see https://docs.nvidia.com/ngc */
const NGC_REGISTRY = "nvcr.io";
const NGC_USER = "$oauthtoken";
/** For images that do not say when they were made: the same image is the same model. */
const NO_TIME = "1970-01-01T00:00:00Z";
/** `sha256-` and twelve digits, as ids are shown. */
const DIGEST_TAG_LENGTH = 19;

/**
 * @throws install_failed (no container engine), unauthorized, not_found, registry_unavailable, insufficient_storage,
 *   offline, cancelled
 */
export async function pullImageModel(
  context: PullContext & { readonly images: ImageSettings },
  request: ImageRequest,
): Promise<Pulled> {
  const { store, remotes, onProgress } = context;
  const named = nameOf(request.reference);
  const name = formatReference(named);
  const stored = await findComplete(store, name);
  const upToDate = (model: StoredModel): Pulled => {
    return { model, reference: name, fetchedBytes: 0, isUpToDate: true };
  };
  if (remotes.offline && stored !== undefined) {
    onProgress?.({ type: "warning", message: outdatedOffline(name) });
    return upToDate(stored);
  }
  const { record, wasThere } = await bring(context, request);
  const encoded = encodeImage(record);
  if (stored?.digest === encoded.manifest.digest) return upToDate(stored);
  await using transaction = await store.begin();
  await transaction.writeBlob(encoded.file);
  await transaction.writeBlob(encoded.config.bytes);
  context.signal.throwIfAborted();
  const model = await transaction.commit(encoded.manifest.bytes, named);
  return { model, reference: name, fetchedBytes: wasThere ? 0 : record.size, isUpToDate: false };
}

/**
 * For a model that is about to be removed: what to do once it is gone.
 *
 * @returns undefined if there is no image that goes with it; else a function that removes it, and says what it removed
 */
export async function imageToForget(
  store: Store,
  digest: string,
  { env, prefixes }: ImageSettings,
): Promise<((signal: AbortSignal) => Promise<string | undefined>) | undefined> {
  const models = (await store.list()).filter(isImageModel);
  const model = models.find((one) => one.digest === digest);
  const record = model && (await tryRead(store, model));
  // A record may have come from anybody: it must not take away what else there is.
  const isOwn = record?.isOwn === true && isImageName(parseReference(record.image), prefixes);
  if (!isOwn) return undefined;
  for (const other of models) {
    if (other === model) continue;
    if ((await tryRead(store, other))?.image === record.image) return undefined;
  }
  return async (signal) => {
    try {
      const engine = await findContainerEngine(env);
      const { registry, repository } = parseReference(record.image);
      const what = { image: record.image, repository: `${registry}/${repository}` };
      if (await removeImage(engine, what, { env, signal })) return record.image;
      // Under another repository's name, or because something runs it.
      log.debug(`models: image kept by ${engine.kind} image=${record.image}`);
    } catch (error) {
      log.warn(`models: image not removed image=${record.image} error=${(error as Error).message}`);
    }
    return undefined;
  };
}

// --- internal ---

/** The digest of an image is none of the store's: it becomes a tag where there is no other. */
function nameOf({ registry, repository, tag, digest }: Reference): Reference {
  const short = digest?.replace(":", "-").slice(0, DIGEST_TAG_LENGTH);
  return { registry, repository, tag: tag ?? short ?? "latest" };
}

interface Brought {
  readonly record: ImageRecord;
  /** The container engine had it already. */
  readonly wasThere: boolean;
}

/** Offline it will do if the container engine has it. */
async function bring(
  context: PullContext & { readonly images: ImageSettings },
  request: ImageRequest,
): Promise<Brought> {
  const { store, remotes, signal, images } = context;
  const { env } = images;
  const { reference } = request;
  const engine = await findContainerEngine(env);
  const image = imageName(reference);
  const before = await inspectImage(engine, image, { env, signal });
  if (!remotes.offline) await fetchImage(context, engine, request);
  else if (before === undefined) throw notHereOffline(formatReference(reference));
  const facts = await inspectImage(engine, image, { env, signal });
  if (facts === undefined) throw lost(engine, image);
  const wasThere = before?.id === facts.id;
  return { record: await toRecord(store, { engine, facts, reference, wasThere }), wasThere };
}

async function tryRead(store: Store, model: Parameters<typeof readImage>[1]) {
  return readImage(store, model).catch(() => undefined);
}

async function fetchImage(
  { remotes, signal, onProgress, images: { env } }: PullContext & { images: ImageSettings },
  engine: ContainerEngine,
  { reference, platform }: ImageRequest,
): Promise<void> {
  const { registry } = reference;
  const found = await remotes.credentials.find(registry, { signal });
  const credential = found ?? ngcCredential(registry, env["NGC_API_KEY"]);
  const image = imageName(reference);
  let phase = "resolving";
  const tell = (next: string): void => {
    phase = next;
    onProgress?.({ type: "progress", id: image, phase, done_bytes: null, total_bytes: null });
  };
  tell(phase);
  await pullImage(engine, image, {
    env,
    signal,
    registry,
    platform,
    credential,
    isInsecure: remotes.isInsecure(registry) || isLoopback(registry),
    onLine: (line) => tell(phaseOf(line) ?? phase),
  });
}

/** Neither engine tells bytes unless it draws on a terminal. */
function phaseOf(line: string): string | undefined {
  if (/^Copying (?:blob|config)|: (?:Pulling fs layer|Downloading|Waiting)/i.test(line)) {
    return "downloading";
  }
  return /^Writing manifest|: (?:Extracting|Pull complete)/i.test(line) ? "unpacking" : undefined;
}

function ngcCredential(registry: string, key: string | undefined): Credential | undefined {
  if (registry !== NGC_REGISTRY || key === undefined || key === "") return undefined;
  return { username: NGC_USER, password: key, source: "NGC_API_KEY" };
}

/** Not all engines take a tag and a digest at once. */
function imageName({ registry, repository, tag, digest }: Reference): string {
  const name = `${registry}/${repository}`;
  return digest === undefined ? `${name}:${tag ?? "latest"}` : `${name}@${digest}`;
}

async function toRecord(
  store: Store,
  {
    engine,
    facts,
    reference,
    wasThere,
  }: {
    readonly engine: ContainerEngine;
    readonly facts: ImageFacts;
    readonly reference: Reference;
    readonly wasThere: boolean;
  },
): Promise<ImageRecord> {
  const { registry, repository } = reference;
  const image = facts.digests.find((one) => one.startsWith(`${registry}/${repository}@sha256:`));
  if (image === undefined) throw lost(engine, imageName(reference));
  const record = {
    image,
    engine: engine.kind,
    size: facts.size,
    created: facts.created ?? NO_TIME,
  };
  return { ...record, isOwn: !wasThere || (await isOurs(store, image)) };
}

/** Another name of it was pulled before, or this one. */
async function isOurs(store: Store, image: string): Promise<boolean> {
  for (const model of (await store.list()).filter(isImageModel)) {
    const record = await tryRead(store, model);
    if (record?.image === image && record.isOwn) return true;
  }
  return false;
}

function lost(engine: ContainerEngine, image: string): AppError {
  const what = `cannot find the image \`${image.slice(0, 200)}\` that ${engine.kind} has pulled`;
  return new AppError("install_failed", `${what}: it does not name it by a digest`, {
    hint: `See what \`${engine.kind} images --digests\` says.`,
  });
}
