/** From the end of a container's log to a sentence. Pure. */
import { complaintOf } from "../../src/container/command.ts";
import type { ExitFacts, ExitReason } from "../../src/runtime/backend.ts";

/** What `docker run` and `podman run` end with when they have not started anything. */
const NOT_STARTED = 125;
/** 128 and the number of SIGKILL. */
const KILLED = 137;

const CAUSES: readonly (ExitReason & { readonly pattern: RegExp })[] = [
  {
    pattern: /image not known|no such image|unable to find image/i,
    reason: "its image is not here any more",
    hint: "Get it again with `tug pull`.",
  },
  {
    pattern: /unresolvable CDI devices|nvidia\.com\/gpu/i,
    reason: "podman does not know this machine's GPUs",
    hint: "Install NVIDIA's container toolkit, and run `nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`.",
  },
  {
    pattern: /could not select device driver|unknown or invalid runtime name: nvidia/i,
    reason: "docker does not know this machine's GPUs",
    hint: "Install NVIDIA's container toolkit, and run `nvidia-ctk runtime configure`.",
  },
  {
    pattern: /NGC_API_KEY|authentication error|NGC.*(?:401|403|unauthorized)/i,
    reason: "NVIDIA's NGC refused to give it the weights",
    hint: "Set NGC_API_KEY to your key of NGC where the runner is started.",
  },
  {
    pattern: /no compatible profiles|0 compatible profile|does not match any profile/i,
    reason: "the image has no profile for this machine's GPUs",
    hint: "See which there are in its documents, and choose one with `tug configure MODEL -- NIM_MODEL_PROFILE=PROFILE`.",
  },
  {
    pattern:
      /CUDA out of memory|OutOfMemoryError|insufficient GPU memory|No available memory for the cache/i,
    reason: "the GPUs have too little free memory",
    hint: "Give it a smaller context, or unload other models with `tug unload --all`.",
    isOutOfMemory: true,
  },
  {
    pattern: /address already in use|port is already allocated/i,
    reason: "its port was taken by another program meanwhile",
  },
  {
    pattern: /permission denied.*\/opt\/nim|\/opt\/nim.*permission denied/i,
    reason: "it cannot write to its cache",
    hint: "Make the directory of LOCAL_NIM_CACHE writable, or unset it.",
  },
];

export function explainNimExit(facts: ExitFacts): ExitReason {
  const { exitCode, signal, stderrTail, wasMemoryShort } = facts;
  if (wasMemoryShort === true && (signal === "SIGKILL" || exitCode === KILLED)) {
    return {
      reason: "the system ended its container for lack of memory",
      hint: "Unload other models with `tug unload --all`.",
      isOutOfMemory: true,
    };
  }
  const known = CAUSES.find(({ pattern }) => pattern.test(stderrTail));
  if (known !== undefined) {
    const { pattern: _, ...reason } = known;
    return reason;
  }
  if (signal !== null) return { reason: `the container was ended by ${signal}` };
  if (exitCode === KILLED) return { reason: "its container was killed" };
  const how =
    exitCode === NOT_STARTED
      ? "the container could not be started"
      : `the container ended with exit code ${exitCode ?? "unknown"}`;
  const line = complaintOf(stderrTail);
  return { reason: line === "" ? how : `${how}: ${line}` };
}
