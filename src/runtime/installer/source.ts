/** What a place that engines come from must do. Adding one is adding a file and a line in `installer.ts`. */
import type { Http } from "../../http/http.ts";
import type { Registry } from "../../oci/registry.ts";
import type { Backend, Gpu, Machine } from "../backend.ts";

/** What an install reports; the same shape as the wire's progress events. */
export interface InstallProgress {
  readonly type: "progress";
  readonly id: string;
  /** `waiting`, `resolving`, `downloading`, `unpacking` or `testing`. */
  readonly phase: string;
  readonly done_bytes: number | null;
  readonly total_bytes: number | null;
}

export type InstallListener = (event: InstallProgress) => void;

/** The ways to other machines: proxies, certificates, credentials and mirrors are theirs. */
export interface InstallRemotes {
  readonly http: Http;
  readonly registry: Registry;
}

export interface SourceContext {
  readonly backend: Backend;
  readonly machine: Machine;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** For what may be kept between installs: package lists, partial downloads. */
  readonly cacheDirectory: string;
  /** That of all engines: for what several of them run with. */
  readonly dataDirectory: string;
  readonly remotes: () => Promise<InstallRemotes>;
  readonly signal: AbortSignal;
  readonly onProgress: InstallListener;
}

export interface SourceRequest {
  readonly gpu: Gpu;
  /** Undefined: the one that the recipe names, or the newest that the source has. */
  readonly version: string | undefined;
  /** The `python` of an environment of the user's own, to use instead of making one. Absolute path. */
  readonly python?: string | undefined;
}

/** An engine that a source has for this machine. */
export interface EnginePlan {
  readonly version: string;
  /** cpu, cuda, rocm, vulkan, metal, or `host` where the source cannot know. */
  readonly variant: string;
  /** What it runs with besides its directory: see `Installation`. */
  readonly needs?: readonly string[] | undefined;
  /** Set by a source that uses an executable where it is; then nothing is copied or ever removed. */
  readonly inPlace?: { readonly directory: string; readonly command: readonly string[] };
  /**
   * Puts the engine into `directory`, which exists and is empty.
   *
   * @returns the argv prefix, relative to `directory` where a word starts with `{directory}`
   */
  fetch(directory: string): Promise<readonly string[]>;
}

export interface InstallSource {
  readonly name: string;
  /** False: it is tried in offline mode too. */
  readonly network: boolean;
  /** False: what it serves does not depend on the GPU asked for. */
  readonly variants: boolean;
  /** True: somebody named what it is to serve, and nothing else is tried. */
  isAskedFor?(context: Pick<SourceContext, "backend" | "env">): boolean;
  /**
   * Finds out, within seconds, whether the source can serve the request.
   *
   * @throws registry_unavailable if the source itself cannot be used now, whatever is asked of it; any other Error
   *   if it has nothing that fits. The message is a clause.
   */
  resolve(request: SourceRequest, context: SourceContext): Promise<EnginePlan>;
}

/** Stands for the directory of the installation in a stored command, which keeps installations relocatable. */
export const DIRECTORY = "{directory}";

export function phaseOf(backend: Backend, phase: string): InstallProgress {
  return { type: "progress", id: backend.name, phase, done_bytes: null, total_bytes: null };
}

export function variantOf(gpu: Gpu): string {
  return gpu === "none" ? "cpu" : gpu;
}

export function report(
  { backend, onProgress }: SourceContext,
  event: { phase: string; id?: string; done?: number; total?: number },
): void {
  onProgress({
    type: "progress",
    id: event.id ?? backend.name,
    phase: event.phase,
    done_bytes: event.done ?? null,
    total_bytes: event.total ?? null,
  });
}
