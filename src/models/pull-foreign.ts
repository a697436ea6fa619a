/** Pulls models that are no OCI artifacts: their files become one in the store. */
import { huggingFaceReference, parseHuggingFaceName } from "../huggingface/name.ts";
import { huggingFaceRevision, planHuggingFace } from "../huggingface/plan.ts";
import { formatReference, type Reference } from "../oci/reference.ts";
import { ollamaReference, ollamaRevision, parseOllamaName, planOllama } from "../ollama/plan.ts";
import type { SourcePlan } from "../transfer/plan.ts";
import { findComplete, notHereOffline, outdatedOffline } from "./complete.ts";
import { type Pulled, type PullContext } from "./pull.ts";
import { receivePlan } from "./receive-plan.ts";
import { parseModelUrl, planUrl, urlRevision } from "./url-source.ts";

/** `org.opencontainers.image.revision`: what a source calls the state that was pulled. */
const REVISION = "org.opencontainers.image.revision";

/** A source of models, for one name. */
interface Foreign {
  readonly reference: Reference;
  /** What the source calls its present state: one request. Undefined where it has no such thing. */
  revision?(): Promise<string | undefined>;
  plan(): Promise<SourcePlan>;
}

/** @returns undefined if the name is none of these sources' */
export async function pullForeign(context: PullContext, name: string): Promise<Pulled | undefined> {
  const foreign = findForeign(context, name);
  if (foreign === undefined) return undefined;
  const { store, remotes, onProgress } = context;
  const reference = formatReference(foreign.reference);
  const stored = await findComplete(store, reference);
  if (remotes.offline) {
    if (stored === undefined) throw notHereOffline(reference);
    onProgress?.({ type: "warning", message: outdatedOffline(reference) });
    return { model: stored, reference, fetchedBytes: 0, isUpToDate: true };
  }
  const known = stored?.manifest.annotations?.[REVISION];
  if (stored !== undefined && known !== undefined && (await foreign.revision?.()) === known)
    return { model: stored, reference, fetchedBytes: 0, isUpToDate: true };
  return receivePlan(context, await foreign.plan());
}

/** The files of such a model, without pulling it. @returns undefined if the name is none of these sources' */
export async function planForeign(
  context: Pick<PullContext, "remotes" | "signal">,
  name: string,
): Promise<SourcePlan | undefined> {
  return findForeign(context, name)?.plan();
}

// --- internal ---

function findForeign(
  { remotes, signal }: Pick<PullContext, "remotes" | "signal">,
  name: string,
): Foreign | undefined {
  const { http, registry } = remotes;
  const hubName = parseHuggingFaceName(name);
  if (hubName !== undefined) {
    const { endpoint, token } = remotes.huggingFace;
    const options = { http, endpoint, token: token(), signal };
    return {
      reference: huggingFaceReference(hubName),
      revision: () => huggingFaceRevision(hubName, options),
      plan: () => planHuggingFace(hubName, options),
    };
  }
  const ollamaName = parseOllamaName(name);
  if (ollamaName !== undefined) {
    return {
      reference: ollamaReference(ollamaName),
      revision: () => ollamaRevision(ollamaName, { registry, signal }),
      plan: () => planOllama(ollamaName, { registry, signal }),
    };
  }
  const url = parseModelUrl(name);
  if (url === undefined) return undefined;
  const options = { http, signal, isInsecure: remotes.isInsecure };
  return {
    reference: url.reference,
    revision: () => urlRevision(url, options),
    plan: () => planUrl(url, options),
  };
}
