/**
 * From a lock of all wheels that there are (`pylock.toml`) to one of those that an engine is installed from, in pip's
 * format: the full lock of vLLM is megabytes, most of it for systems that it does not run on. Pure.
 *
 * @see https://packaging.python.org/en/latest/specifications/pylock-toml/
 * @see https://packaging.python.org/en/latest/specifications/platform-compatibility-tags/
 */
import { holds, type MarkerEnvironment } from "./markers.ts";

export interface Targets {
  /** Minor versions of Python 3. */
  readonly pythons: readonly number[];
  /** The newest C library that is asked for, 2.x. */
  readonly glibc: number;
}

export interface Trimmed {
  readonly requirements: string;
  /** Packages without a wheel for some target, which cannot be installed there. */
  readonly missing: readonly string[];
}

const ARCHITECTURES = ["x86_64", "aarch64"] as const;

interface Package {
  readonly name: string;
  readonly version: string;
  readonly marker?: string;
  readonly wheels?: readonly {
    readonly url: string;
    readonly hashes: { readonly sha256: string };
  }[];
}

/** @param lock the text of a `pylock.toml` */
export function trim(lock: string, targets: Targets): Trimmed {
  // Bun's parser knows no times.
  const text = lock.replaceAll(/\b(upload-time = )([\dT:.Z+-]+)/g, '$1"$2"');
  const { packages } = Bun.TOML.parse(text) as { readonly packages: readonly Package[] };
  const lines: string[] = [];
  const missing: string[] = [];
  for (const one of packages) {
    const places = placesOf(targets);
    const needed = places.filter(
      ({ environment }) => one.marker === undefined || holds(one.marker, environment),
    );
    if (needed.length === 0) continue;
    const wheels = (one.wheels ?? []).map(({ url, hashes }) => {
      return { sha256: hashes.sha256, fits: fitsOf(fileOf(url), targets) };
    });
    const used = wheels.filter(({ fits }) => fits.size > 0);
    const had = new Set(used.flatMap(({ fits }) => [...fits]));
    const lacking = needed.filter(({ key }) => !had.has(key)).map(({ key }) => key);
    if (lacking.length > 0) missing.push(`${one.name} ${one.version}: ${lacking.join(", ")}`);
    if (used.length === 0) continue;
    const marker = needed.length === places.length ? "" : ` ; ${one.marker}`;
    const hashes = [...new Set(used.map(({ sha256 }) => sha256))].toSorted();
    const pins = hashes.map((hash) => ` \\\n    --hash=sha256:${hash}`);
    lines.push(`${one.name}==${one.version}${marker}${pins.join("")}\n`);
  }
  return { requirements: lines.join(""), missing };
}

// --- internal ---

interface Place {
  /** `x86_64 3.12` */
  readonly key: string;
  readonly environment: MarkerEnvironment;
}

function placesOf({ pythons }: Targets): readonly Place[] {
  return ARCHITECTURES.flatMap((architecture) =>
    pythons.map((minor) => ({
      key: keyOf(architecture, minor),
      environment: {
        sys_platform: "linux",
        platform_system: "Linux",
        os_name: "posix",
        platform_machine: architecture,
        implementation_name: "cpython",
        platform_python_implementation: "CPython",
        python_version: `3.${minor}`,
        python_full_version: `3.${minor}.5`,
        extra: "",
      },
    })),
  );
}

function keyOf(architecture: string, minor: number): string {
  return `${architecture} 3.${minor}`;
}

function fileOf(url: string): string {
  return decodeURIComponent(url.slice(url.lastIndexOf("/") + 1));
}

/** The places that a wheel can be installed in, by its name. */
function fitsOf(file: string, targets: Targets): ReadonlySet<string> {
  const [python = "", abi = "", platform = ""] = file.slice(0, -".whl".length).split("-").slice(-3);
  const architectures = platform.split(".").flatMap((one) => architecturesOf(one, targets.glibc));
  const minors = python.split(".").flatMap((tag) => minorsOf(tag, abi, targets.pythons));
  return new Set(architectures.flatMap((one) => minors.map((minor) => keyOf(one, minor))));
}

/** C libraries of the tags before they were named after them. */
const OLD_TAGS: Readonly<Record<string, number>> = {
  manylinux1: 5,
  manylinux2010: 12,
  manylinux2014: 17,
};

function architecturesOf(platform: string, newest: number): readonly string[] {
  if (platform === "any") return ARCHITECTURES;
  const [, named, old, architecture = ""] =
    /^(?:manylinux_2_(\d+)|(manylinux\d+)|linux)_(\w+)$/.exec(platform) ?? [];
  const glibc = named === undefined ? (OLD_TAGS[old ?? ""] ?? 0) : Number(named);
  const isKnown = (ARCHITECTURES as readonly string[]).includes(architecture);
  return isKnown && glibc <= newest ? [architecture] : [];
}

function minorsOf(tag: string, abi: string, pythons: readonly number[]): readonly number[] {
  if (tag === "py3") return pythons;
  const [, kind, digits] = /^(cp|py)3(\d+)$/.exec(tag) ?? [];
  if (kind === undefined) return [];
  const minor = Number(digits);
  if (kind === "py") return abi === "none" ? pythons : [];
  if (abi === "abi3") return pythons.filter((one) => one >= minor);
  return abi === "none" || abi === `cp3${minor}` ? pythons.filter((one) => one === minor) : [];
}
