/** What Tug is compiled for, as data. Pure. */

export interface Target {
  /** Name on the command line and in the file name: `linux-x64`, `linux-arm64-musl`. */
  readonly name: string;
  /** `bun build --target`. */
  readonly bunTarget: string;
  readonly platform: "linux" | "darwin" | "win32";
  readonly arch: "x64" | "arm64";
  readonly libc: "glibc" | "musl" | null;
}

export interface HostFacts {
  readonly platform: NodeJS.Platform;
  readonly arch: NodeJS.Architecture;
  /** Whether the running Bun is linked against musl. */
  readonly musl: boolean;
}

export const TARGETS: readonly Target[] = [
  linux("x64", "glibc"),
  linux("x64", "musl"),
  linux("arm64", "glibc"),
  linux("arm64", "musl"),
  darwin("x64"),
  darwin("arm64"),
  {
    name: "windows-x64",
    bunTarget: "bun-windows-x64",
    platform: "win32",
    arch: "x64",
    libc: null,
  },
];

/** The target of the machine that compiles, or undefined if Tug is not made for it. */
export function hostTarget({ platform, arch, musl }: HostFacts): Target | undefined {
  const libc = platform === "linux" ? (musl ? "musl" : "glibc") : null;
  return TARGETS.find(
    (target) => target.platform === platform && target.arch === arch && target.libc === libc,
  );
}

/** `tug-linux-x64`, `tug-windows-x64.exe`; the host's own is `tug` or `tug.exe`. */
export function fileName(target: Target, options: { asHost: boolean }): string {
  const stem = options.asHost ? "tug" : `tug-${target.name}`;
  return target.platform === "win32" ? `${stem}.exe` : stem;
}

export function findTarget(name: string): Target | undefined {
  return TARGETS.find((target) => target.name === name);
}

// --- internal ---

function linux(arch: Target["arch"], libc: "glibc" | "musl"): Target {
  const name = libc === "musl" ? `linux-${arch}-musl` : `linux-${arch}`;
  return { name, bunTarget: `bun-${name}`, platform: "linux", arch, libc };
}

function darwin(arch: Target["arch"]): Target {
  const name = `darwin-${arch}`;
  return { name, bunTarget: `bun-${name}`, platform: "darwin", arch, libc: null };
}
