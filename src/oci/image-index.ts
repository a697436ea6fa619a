/** Indexes: several manifests under one name, of which one is for this machine. */
import { AppError } from "../errors.ts";
import { printable } from "../http/host.ts";
import { type Descriptor, isRecord, parseDescriptor } from "./descriptor.ts";
import { isIndexType, isManifestType } from "./manifest-type.ts";
import { MAX_MANIFEST_BYTES } from "./manifest.ts";
import {
  DOCKER_CONFIG_V01,
  DOCKER_CONFIG_V02,
  MODELPACK_CONFIG,
  MODELPACK_MANIFEST,
} from "./media-types.ts";

/** @see https://github.com/opencontainers/image-spec/blob/v1.1.1/image-index.md */
export interface ImageIndex {
  readonly manifests: readonly Descriptor[];
}

export interface ChooseOptions {
  /** `os/arch[/variant]`; this machine's unless given. */
  readonly platform?: string;
  /** `os/arch`: this machine; for tests. */
  readonly machine?: string;
}

/** What is listed is shown to people and tried one after the other. */
const MAX_ENTRIES = 1024;
const MAX_LISTED = 10;

/** @throws invalid_model_file */
export function parseIndex(bytes: Uint8Array): ImageIndex {
  const value = bytes.length > MAX_MANIFEST_BYTES ? undefined : tryJson(bytes);
  const entries = isRecord(value) ? value["manifests"] : undefined;
  if (!Array.isArray(entries)) throw malformed("it lists no manifests");
  if (entries.length > MAX_ENTRIES) throw malformed(`it has more than ${MAX_ENTRIES} entries`);
  return {
    manifests: entries.map((entry, at) => parseDescriptor(entry, `the index's manifests[${at}]`)),
  };
}

/**
 * The manifest to use: the one for the platform that was asked for; else the only model, the only manifest, or the one for
 * this machine. Attestations and nested indexes do not count. An entry without a platform is for all, where none is
 * for this one.
 *
 * @throws usage (a platform that cannot be understood), unsupported_model if none fits; the message lists what there is
 */
export function chooseManifest(index: ImageIndex, options: ChooseOptions = {}): Descriptor {
  const usable = index.manifests.filter(isUsable);
  const models = usable.filter(({ artifactType }) => MODEL_TYPES.has(artifactType ?? ""));
  const candidates = models.length > 0 ? models : usable;
  if (options.platform !== undefined) {
    const asked = parsePlatform(options.platform);
    const found = findFor(candidates, [asked]);
    if (found !== undefined) return found;
    throw noneFits(candidates, `none is for \`${shown(asked)}\``);
  }
  const [only] = candidates;
  if (only !== undefined && candidates.length === 1) return only;
  const machine = parsePlatform(options.machine ?? thisMachine());
  // Models are data: what was made for Linux on this processor is right on any system.
  const found = findFor(candidates, [machine, { ...machine, os: "linux" }]);
  if (found !== undefined) return found;
  throw noneFits(candidates, `none is for this machine (\`${shown(machine)}\`)`);
}

// --- internal ---

type Platform = NonNullable<Descriptor["platform"]>;

const MODEL_TYPES: ReadonlySet<string> = new Set([
  MODELPACK_MANIFEST,
  MODELPACK_CONFIG,
  DOCKER_CONFIG_V01,
  DOCKER_CONFIG_V02,
]);

const ARCHITECTURES: Readonly<Record<string, string>> = {
  x64: "amd64",
  x86_64: "amd64",
  "x86-64": "amd64",
  aarch64: "arm64",
};
const SYSTEMS: Readonly<Record<string, string>> = { win32: "windows", macos: "darwin" };

/** BuildKit lists what it says about an image beside the image. */
const REFERENCE_TYPE = "vnd.docker.reference.type";

function isUsable({ mediaType, platform, annotations }: Descriptor): boolean {
  const isAttestation =
    platform?.os === "unknown" ||
    platform?.architecture === "unknown" ||
    annotations?.[REFERENCE_TYPE] !== undefined;
  return isManifestType(mediaType) && !isIndexType(mediaType) && !isAttestation;
}

function findFor(
  candidates: readonly Descriptor[],
  platforms: readonly Platform[],
): Descriptor | undefined {
  for (const wanted of platforms) {
    const found = candidates.find(
      ({ platform }) => platform !== undefined && fits(normalized(platform), wanted),
    );
    if (found !== undefined) return found;
  }
  return candidates.find(({ platform }) => platform === undefined);
}

function fits(offered: Platform, wanted: Platform): boolean {
  if (offered.os !== wanted.os || offered.architecture !== wanted.architecture) return false;
  // v8 is what arm64 is without a variant.
  const variant = ({ architecture, variant: text = "" }: Platform): string =>
    architecture === "arm64" && text === "v8" ? "" : text;
  return wanted.variant === undefined || variant(offered) === variant(wanted);
}

function parsePlatform(text: string): Platform {
  const [os = "", architecture = "", variant, ...more] = text.trim().toLowerCase().split("/");
  const isPlatform = [os, architecture, variant ?? "x"].every((part) =>
    /^[a-z0-9_.-]{1,32}$/.test(part),
  );
  if (isPlatform && more.length === 0)
    return normalized({ os, architecture, ...(variant === undefined ? {} : { variant }) });
  throw new AppError("usage", `\`${printable(text)}\` is not a platform`, {
    hint: "Write it as `linux/amd64` or `linux/arm64/v8`.",
  });
}

function normalized({ os, architecture, variant }: Platform): Platform {
  return {
    os: SYSTEMS[os] ?? os,
    architecture: ARCHITECTURES[architecture] ?? architecture,
    // A registry may send anything here.
    ...(typeof variant === "string" && variant !== "" ? { variant } : {}),
  };
}

function thisMachine(): string {
  return `${process.platform}/${process.arch}`;
}

function shown({ os, architecture, variant }: Platform): string {
  return printable([os, architecture, variant].filter((part) => part !== undefined).join("/"));
}

function noneFits(candidates: readonly Descriptor[], reason: string): AppError {
  const listed = candidates
    .slice(0, MAX_LISTED)
    .map(({ platform, digest }) => (platform === undefined ? digest : shown(normalized(platform))));
  const rest = candidates.length > MAX_LISTED ? ", …" : "";
  const text =
    listed.length === 0
      ? "it lists no manifest of a model"
      : `${reason}; there is ${listed.join(", ")}${rest}`;
  return new AppError("unsupported_model", `cannot choose from the index: ${text}`, {
    ...(listed.length === 0 ? {} : { hint: "Choose one with `--platform`." }),
    details: { platforms: listed },
  });
}

function tryJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    return undefined;
  }
}

function malformed(reason: string): AppError {
  return new AppError("invalid_model_file", `cannot read the index: ${reason}`);
}
