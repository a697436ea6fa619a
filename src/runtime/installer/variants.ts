/** Which builds of an engine an installation tries, in which order, and what its user is told of that. */
import { log } from "../../log.ts";
import { type Backend, type Gpu, GPUS, type Installation, type Machine } from "../backend.ts";
import { decideVariant, type VariantChoice } from "../hardware/index.ts";
import type { InstallSource, SourceContext } from "./source.ts";

export interface VariantWarning {
  readonly type: "warning";
  /** A sentence without a full stop. */
  readonly message: string;
}

export interface DecideInput {
  readonly gpu: Gpu | "auto";
  readonly sources: readonly InstallSource[];
  readonly context: Pick<SourceContext, "backend" | "machine" | "env" | "signal">;
  readonly onWarning: OnWarning | undefined;
}

type OnWarning = (message: string) => void;

/** A source, and the variants to ask it for, best first. */
export interface Try {
  readonly source: InstallSource;
  readonly gpus: readonly Gpu[];
}

/** It is shown in one line. Characters. */
const MAX_REASON = 500;
/** Engines that a single source builds for: the others must not serve something less before that one was asked. */
const SCARCE: ReadonlySet<Gpu> = new Set(["musa", "cann", "sycl"]);

/**
 * Looks at the machine, once, and says what was decided.
 *
 * @throws usage (a wrong TUG_GPU); install_failed if the GPU that was asked for is not there
 */
export async function decide({
  gpu,
  sources,
  context,
  onWarning,
}: DecideInput): Promise<VariantChoice> {
  const { backend, machine, env, signal } = context;
  const isAsked = sources.some((source) => source.isAskedFor?.(context) === true);
  const choice = await decideVariant({
    machine,
    env,
    gpu,
    signal,
    engine: backend.name,
    needs: backend.recipe.gpuNeeds,
    available: isAsked ? undefined : availableVariants(backend, machine, sources),
  });
  log.info(`installer: variant chosen backend=${backend.name} reason=${choice.reason}`);
  for (const message of choice.warnings) warn(message, onWarning);
  return choice;
}

/** In order; a source whose engine is the same on every machine comes up once. */
export function tries(
  sources: readonly InstallSource[],
  { order, gpu }: VariantChoice,
  context: Pick<SourceContext, "backend" | "env">,
): readonly Try[] {
  const rounds = SCARCE.has(gpu) && order.length > 1 ? [[gpu], order.slice(1)] : [order];
  return rounds.flatMap((gpus, round) =>
    sources.flatMap((source) => {
      const isVaried = source.variants && source.isAskedFor?.(context) !== true;
      if (isVaried) return [{ source, gpus }];
      return round === 0 ? [{ source, gpus: [gpu] }] : [];
    }),
  );
}

/**
 * Why a build is for this GPU, to be kept with it.
 *
 * @returns undefined for a source whose engine is the same on every machine
 */
export function reasonFor(
  gpu: Gpu,
  { choice, source }: { readonly choice: VariantChoice; readonly source: InstallSource },
): string | undefined {
  if (!source.variants) return undefined;
  const { reason } = choice;
  const text = gpu === choice.gpu ? reason : `${gpu}: there was no build of the choice, ${reason}`;
  return text.slice(0, MAX_REASON);
}

/** Says so if a GPU is left unused because no build for it could be had. @param reasons why, by source */
export function noteFallback(
  { backend, variant }: Installation,
  {
    choice,
    reasons,
    onWarning,
  }: {
    readonly choice: VariantChoice;
    readonly reasons: readonly string[];
    readonly onWarning: OnWarning | undefined;
  },
): void {
  if (choice.gpu === "none" || variant !== "cpu") return;
  const why = reasons.length === 0 ? "" : ` (${reasons.join("; ").slice(0, 300)})`;
  const { reason, gpu } = choice;
  warn(
    `${backend} runs on the processor alone: no ${gpu} build could be installed${why}; the choice was ${reason}`,
    onWarning,
  );
}

/**
 * The builds that sources say they have for a machine; whether they do, only asking them tells.
 *
 * @returns undefined if none of them says
 */
export function availableVariants(
  { recipe }: Backend,
  machine: Machine,
  sources: readonly Pick<InstallSource, "name" | "variants">[],
): readonly Gpu[] | undefined {
  const names = new Set(sources.filter(({ variants }) => variants).map(({ name }) => name));
  if (names.size === 0) return undefined;
  const { github, oci, apt, pypi } = recipe;
  const isLinux = machine.platform === "linux";
  return GPUS.filter((gpu) => {
    const has: Readonly<Record<string, () => boolean | undefined>> = {
      github: () => github && github.assets(machine, gpu, github.version).length > 0,
      oci: () => oci && oci.tag(machine, gpu, undefined) !== null,
      apt: () => apt && isLinux && apt.packages(gpu).length > 0,
      pypi: () => pypi && pypi.requirements(machine, gpu) !== undefined,
    };
    return [...names].some((name) => has[name]?.() === true);
  });
}

// --- internal ---

/** Once: on a terminal the log would repeat what its user is told. */
function warn(message: string, onWarning: OnWarning | undefined): void {
  if (onWarning === undefined) log.warn(`installer: ${message}`);
  else log.info(`installer: warned reason=${message}`);
  onWarning?.(message);
}
