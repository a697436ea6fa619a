/** Which build of an engine a machine gets, and why. Pure. */
import { AppError } from "../../errors.ts";
import { type Gpu, GPUS, type GpuNeeds } from "../backend.ts";
import type { GpuFacts } from "./gpu-facts.ts";
import { type Able, type Judgement, JUDGES, type Unable } from "./judge.ts";

export interface VariantRequest {
  readonly engine: string;
  /** This one or an error; undefined: what fits best. */
  readonly forced?: Gpu | undefined;
  /** Builds that the engine has for this machine; absent: all. */
  readonly available?: readonly Gpu[] | undefined;
  readonly needs?: GpuNeeds | undefined;
}

export interface VariantChoice {
  readonly gpu: Gpu;
  /** `cuda: NVIDIA GeForce RTX 4090 (…)`, `none, although an NVIDIA GPU is there: …`. */
  readonly reason: string;
  /** What the user loses and may mend; sentences without a full stop. */
  readonly warnings: readonly string[];
  /** What to try where `gpu` cannot be had, best first, `gpu` included. */
  readonly order: readonly Gpu[];
}

/** Best first. SYCL and ROCm come before Vulkan, which serves nearly all, because who installed them wants them. */
const PREFERENCE = ["metal", "cuda", "rocm", "musa", "cann", "sycl", "opencl", "vulkan"] as const;

/**
 * What fits best, with its reason; or what was forced.
 *
 * @throws install_failed if what was forced cannot run here
 */
export function chooseVariant(facts: GpuFacts, request: VariantRequest): VariantChoice {
  const { forced, needs = {} } = request;
  if (forced === "none") return only("none", "it was asked for");
  if (forced === undefined) return chooseBest(facts, request);
  const judgement = JUDGES[forced](facts, needs);
  if (!judgement.able) throw refusal(forced, request, judgement);
  return { ...only(forced, judgement.what), warnings: judgement.warnings ?? [] };
}

/**
 * `TUG_GPU`: what the machine is to be taken for, whatever it has; undefined if it is unset, empty or `auto`.
 *
 * @throws usage
 */
export function parseAssumed(text: string | undefined): Gpu | undefined {
  if (text === undefined || text === "" || text === "auto") return undefined;
  const assumed = GPUS.find((gpu) => gpu === text);
  if (assumed !== undefined) return assumed;
  throw new AppError("usage", `cannot use TUG_GPU: there is no \`${text.slice(0, 50)}\``, {
    hint: `Set it to one of: ${GPUS.join(", ")}; or unset it.`,
  });
}

/**
 * The choice on a machine that is taken for one with `assumed`.
 *
 * @throws install_failed if what was forced would not run there
 */
export function chooseAssumed(assumed: Gpu, { engine, forced }: VariantRequest): VariantChoice {
  const order = fallbacks(assumed);
  const told = "TUG_GPU says so";
  if (forced === undefined) return { ...only(assumed, told), order };
  if (forced === "none" || order.includes(forced)) return only(forced, told);
  throw new AppError(
    "install_failed",
    `cannot install ${engine} for ${forced}: TUG_GPU says that this machine has \`${assumed}\``,
    { hint: `Unset TUG_GPU, or set it to \`${forced}\`.`, details: { gpu: forced } },
  );
}

// --- internal ---

function only(gpu: Gpu, why: string): VariantChoice {
  return { gpu, reason: `${gpu}: ${why}`, warnings: [], order: [gpu] };
}

/** Drivers of most GPUs bring Vulkan. */
function fallbacks(gpu: Gpu): readonly Gpu[] {
  if (gpu === "none" || gpu === "metal") return [gpu];
  return gpu === "vulkan" ? [gpu, "none"] : [gpu, "vulkan", "none"];
}

interface Judged<J extends Judgement> {
  readonly gpu: Exclude<Gpu, "none">;
  readonly judgement: J;
}

function chooseBest(facts: GpuFacts, request: VariantRequest): VariantChoice {
  const { available = GPUS, needs = {}, engine } = request;
  const able: Judged<Able>[] = [];
  const unable: Judged<Unable>[] = [];
  for (const gpu of PREFERENCE) {
    const judgement = JUDGES[gpu](facts, needs);
    if (!judgement.able) unable.push({ gpu, judgement });
    else if (judgement.onlyIfAsked !== true) able.push({ gpu, judgement });
  }
  const fitting = able.filter(({ gpu }) => available.includes(gpu));
  const [best] = fitting;
  const [wanted] = able;
  const { platform, arch } = facts.machine;
  const lacking =
    wanted === undefined || wanted === best
      ? undefined
      : `${engine} has no ${wanted.gpu} build for ${platform} ${arch}`;
  if (best === undefined) return chooseNone(unable, { wanted, lacking });
  const warned = unable.filter(
    ({ gpu, judgement }) => judgement.isThere && !judgement.isUsual && isBetter(gpu, best.gpu),
  );
  return {
    gpu: best.gpu,
    reason: `${best.gpu}: ${best.judgement.what}${aside(best, { lacking, unable })}`,
    warnings: [
      ...warned.map(({ gpu, judgement }) => notChosen(gpu, judgement)),
      ...(best.judgement.warnings ?? []),
    ],
    order: orderOf(fitting, available),
  };
}

function orderOf(fitting: readonly Judged<Able>[], available: readonly Gpu[]): readonly Gpu[] {
  const gpus = fitting.map(({ gpu }) => gpu);
  const others = fallbacks(gpus[0] ?? "none").filter((gpu) => available.includes(gpu));
  return [...new Set<Gpu>([...gpus, ...others])];
}

/** Why it is Vulkan. */
function aside(
  { gpu }: Judged<Able>,
  { lacking, unable }: { lacking: string | undefined; unable: readonly Judged<Unable>[] },
): string {
  if (lacking !== undefined) return ` (${lacking})`;
  const isAmd = unable.some(
    (one) => one.gpu === "rocm" && one.judgement.isThere && one.judgement.isUsual === true,
  );
  return gpu === "vulkan" && isAmd ? " without ROCm" : "";
}

function chooseNone(
  unable: readonly Judged<Unable>[],
  { wanted, lacking }: { wanted: Judged<Able> | undefined; lacking: string | undefined },
): VariantChoice {
  if (wanted !== undefined) {
    return unused(`${wanted.judgement.what} is there: ${lacking}`, "");
  }
  const there = unable.find(({ judgement }) => judgement.isThere)?.judgement;
  if (there === undefined) return only("none", "no GPU was found");
  return unused(`${there.thing} is there: ${there.why}`, adviceOf(there));
}

function unused(what: string, advice: string): VariantChoice {
  const warning = `the processor alone is used, although ${what}${advice}`;
  return { ...only("none", ""), reason: `none, although ${what}`, warnings: [warning] };
}

function adviceOf({ hint }: Unable): string {
  return hint === undefined ? "" : ` (${hint.replace(/\.$/, "")})`;
}

function isBetter(one: (typeof PREFERENCE)[number], other: (typeof PREFERENCE)[number]): boolean {
  return PREFERENCE.indexOf(one) < PREFERENCE.indexOf(other);
}

function notChosen(gpu: Gpu, unable: Unable): string {
  const { thing, why } = unable;
  return `${gpu} was not chosen, although ${thing} is there: ${why}${adviceOf(unable)}`;
}

function refusal(gpu: Gpu, { engine }: VariantRequest, unable: Unable): AppError {
  const { thing, isThere, why, hint } = unable;
  const reason = isThere ? `there is ${thing}, but ${why}` : why;
  const prepare = `To prepare an image for another machine, set \`TUG_GPU=${gpu}\`.`;
  return new AppError("install_failed", `cannot install ${engine} for ${gpu}: ${reason}`, {
    hint: `${hint ?? ""} Use \`--gpu none\` for the processor. ${prepare}`.trim(),
    details: { gpu, reason },
  });
}
