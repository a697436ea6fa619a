/** Where a llama-server comes from. Values only; `src/runtime/installer/` does the work. */
import type { Gpu, InstallRecipe, Machine } from "../../src/runtime/backend.ts";
import release from "./release.json" with { type: "json" };

/**
 * Chips that the ROCm builds for Linux have code for.
 *
 * @see https://github.com/ggml-org/llama.cpp/blob/master/.github/workflows/release.yml, `gpu_targets`
 */
const ROCM_TARGETS =
  "gfx908 gfx90a gfx942 gfx1030 gfx1100 gfx1101 gfx1102 gfx1150 gfx1151 gfx1200 gfx1201";

/** Of the two that upstream builds the one that older drivers run, too. */
const WINDOWS_CUDA = "12.4";

/** Where the image has a variant, if not everywhere. Moore Threads' driver is for x86 only. */
const IMAGE_MACHINES: Readonly<Partial<Record<Gpu, RegExp>>> = {
  metal: /^darwin /,
  musa: /^linux x64$/,
  cann: /^linux /,
  sycl: /^$/,
  opencl: /^$/,
};

export const recipe: InstallRecipe = {
  // The image has CUDA 12, whose compiler knows nothing older than Maxwell.
  gpuNeeds: { cuda: 12, computeCapability: 5, rocmTargets: ROCM_TARGETS.split(" ") },
  path: {
    environment: ["TUG_LLAMA_SERVER", "LLAMA_SERVER_PATH"],
    executable: "llama-server",
  },
  github: {
    repository: release.repository,
    version: release.version,
    assets: githubAssets,
    companions: cudaRuntime,
    executable: "llama-server",
  },
  oci: {
    repository: "docker.io/docker/docker-model-backend-llamacpp",
    tag: ociTag,
    tree: (machine, gpu) =>
      `com.docker.llama-server.native.${ociSystem(machine)}.${ociVariant(gpu)}.${ociArch(machine)}`,
    executables: ["com.docker.llama-server", "llama-server"],
    environment: "TUG_ENGINE_IMAGE",
  },
  apt: {
    packages: aptPackages,
    // For `tug rpc`, 0.4 MB.
    extras: () => ["llama.cpp-tools-extra", "libggml0-backend-rpc"],
    suite: "sid",
    mainPackage: "llama.cpp-tools",
    files: [
      "usr/bin/llama-server",
      "usr/libexec/*/llama/bin/ggml-rpc-server",
      "usr/lib/*/llama/libllama-server-impl.so",
      "usr/lib/*/ggml/backends*/*.so",
      "usr/lib/*/lib{llama,llama-common,mtmd,ggml,ggml-base}.so.*",
      "usr/lib/*/lib{c,m,mvec,dl,rt,pthread,resolv,util,anl,nss_files,nss_dns}.so.*",
      "usr/lib/*/lib{ssl,crypto,stdc++,gomp,gcc_s,zstd,z,vulkan}.so.*",
      "usr/lib/*/ld-linux-*.so.*",
    ],
    executable: "llama-server",
  },
};

/**
 * Asset names of llama.cpp's releases.
 *
 * @see https://github.com/ggml-org/llama.cpp/blob/master/.github/workflows/release.yml
 */
export function githubAssets(machine: Machine, gpu: Gpu, version: string): readonly string[] {
  const { platform, arch } = machine;
  if (arch !== "x64" && arch !== "arm64") return [];
  const asset = (rest: string): string => `llama-${version}-bin-${rest}`;
  if (platform === "linux") return linuxBuilds(arch, gpu).map((rest) => asset(`${rest}.tar.gz`));
  if (platform === "win32") return windowsBuilds(arch, gpu).map((rest) => asset(`${rest}.zip`));
  if (platform === "darwin" && gpu === (arch === "arm64" ? "metal" : "none")) {
    return [asset(`macos-${arch}.tar.gz`), asset(`macos-${arch}.zip`)];
  }
  return [];
}

// --- internal ---

/**
 * Upstream builds no CUDA for Linux: those GPUs are served by Vulkan. SYCL and CANN are not in every release; where they
 * are not, the next variant is tried.
 */
function linuxBuilds(arch: "x64" | "arm64", gpu: Gpu): readonly string[] {
  if (gpu === "none") return [`ubuntu-${arch}`];
  if (gpu === "vulkan") return [`ubuntu-vulkan-${arch}`];
  if (gpu === "cann") return [`910b-openEuler-${arch === "x64" ? "x86" : "aarch64"}-aclgraph`];
  if (arch !== "x64") return [];
  if (gpu === "rocm") return ["ubuntu-rocm-7.2-x64"];
  return gpu === "sycl" ? ["ubuntu-sycl-fp16-x64", "ubuntu-sycl-fp32-x64"] : [];
}

function windowsBuilds(arch: "x64" | "arm64", gpu: Gpu): readonly string[] {
  if (gpu === "none") return [`win-cpu-${arch}`];
  if (arch !== "x64") return gpu === "opencl" ? ["win-opencl-adreno-arm64"] : [];
  if (gpu === "cuda") return [`win-cuda-${WINDOWS_CUDA}-x64`];
  if (gpu === "vulkan") return ["win-vulkan-x64"];
  if (gpu === "rocm") return ["win-hip-radeon-x64"];
  return gpu === "sycl" ? ["win-sycl-x64"] : [];
}

/** Windows' CUDA builds come without NVIDIA's libraries, which are in an archive of their own. */
function cudaRuntime(asset: string): readonly string[] {
  const build = /-bin-(win-cuda-.*)$/.exec(asset)?.[1];
  return build === undefined ? [] : [`cudart-llama-bin-${build}`];
}

/**
 * The smallest set that runs llama-server, its C library included; the closure of dependencies is three times that.
 * CUDA is not in Debian's main archive, and its ROCm libraries are gigabytes: Vulkan serves both kinds of GPU.
 */
function aptPackages(gpu: Gpu): readonly string[] {
  const packages = [
    "llama.cpp-tools",
    "libllama0",
    "libggml0",
    "libssl3t64",
    "libc6",
    "libstdc++6",
    "libgomp1",
    "libgcc-s1",
    "libzstd1",
    "zlib1g",
  ];
  if (gpu === "none") return packages;
  if (gpu === "vulkan") return [...packages, "libggml0-backend-vulkan", "libvulkan1"];
  return [];
}

/**
 * Tags of the image that Docker Model Runner takes its engines from.
 *
 * @see https://hub.docker.com/r/docker/docker-model-backend-llamacpp/tags
 */
function ociTag(machine: Machine, gpu: Gpu, version = "latest"): string | null {
  const { arch } = machine;
  if ((arch !== "x64" && arch !== "arm64") || !isInImage(machine, gpu)) return null;
  return `${version}-${ociVariant(gpu)}`;
}

function isInImage({ platform, arch }: Machine, gpu: Gpu): boolean {
  const only = IMAGE_MACHINES[gpu];
  return only === undefined || only.test(`${platform} ${arch}`);
}

function ociVariant(gpu: Gpu): string {
  return gpu === "none" ? "cpu" : gpu;
}

function ociSystem({ platform }: Machine): string {
  return platform === "win32" ? "windows" : platform;
}

function ociArch({ arch }: Machine): string {
  return arch === "x64" ? "amd64" : arch;
}
