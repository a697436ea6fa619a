/**
 * Runtime flags of llama-server that a model's settings may carry. Pure.
 *
 * An allow list, because settings can come over HTTP and in artifacts: llama-server also has flags that read and
 * write files, open the network, run tools, and move the socket away from under the runner.
 */
import { AppError } from "../../src/errors.ts";

/** Flags without a value. */
const SWITCHES = words(`
  --swa-full --perf --no-perf -e --escape --no-escape -kvo --kv-offload -nkvo --no-kv-offload --repack -nr --no-repack
  --no-host -cmoe --cpu-moe --check-tensors --op-offload --no-op-offload --mlock --mmap --no-mmap
  --ignore-eos -bs --backend-sampling
  -cmoed --cpu-moe-draft --spec-draft-cpu-moe --spec-draft-backend-sampling --no-spec-draft-backend-sampling
  -kvu --kv-unified -no-kvu --no-kv-unified --cache-idle-slots --no-cache-idle-slots --context-shift --no-context-shift
  -sp --special --warmup --no-warmup --spm-infill -cb --cont-batching -nocb --no-cont-batching
  --mmproj-auto --no-mmproj --no-mmproj-auto --mmproj-offload --no-mmproj-offload
  --embedding --embeddings --rerank --reranking --cache-prompt --no-cache-prompt --metrics --props --slots --no-slots
  --jinja --no-jinja --reasoning-preserve --no-reasoning-preserve --skip-chat-parsing --no-skip-chat-parsing
  --prefill-assistant --no-prefill-assistant -v --verbose --log-verbose --log-disable
  --log-prefix --no-log-prefix --log-timestamps --no-log-timestamps --spec-default
`);

/** Flags with exactly one value. */
const VALUED = words(`
  -t --threads -tb --threads-batch -C --cpu-mask -Cr --cpu-range --cpu-strict --prio --poll -Cb --cpu-mask-batch
  -Crb --cpu-range-batch --cpu-strict-batch --prio-batch --poll-batch --numa --threads-http
  -c --ctx-size -n --predict --n-predict -b --batch-size -ub --ubatch-size --keep -fa --flash-attn
  --rope-scaling --rope-scale --rope-freq-base --rope-freq-scale
  --yarn-orig-ctx --yarn-ext-factor --yarn-attn-factor --yarn-beta-slow --yarn-beta-fast
  -ctk --cache-type-k -ctv --cache-type-v -dt --defrag-thold -lm --load-mode -lzm --lazy-mode
  -dev --device -ot --override-tensor -ncmoe --n-cpu-moe --moe-cache-mib -ncffn --n-cpu-ffn
  -ngl --gpu-layers --n-gpu-layers -sm --split-mode -ts --tensor-split -mg --main-gpu
  -fit --fit -fitt --fit-target -fitc --fit-ctx --override-kv -lv --verbosity --log-verbosity --log-colors
  --samplers -s --seed --sampler-seq --sampling-seq --temp --temperature --top-k --top-p --min-p
  --top-nsigma --top-n-sigma --xtc-probability --xtc-threshold --typical --typical-p
  --repeat-last-n --repeat-penalty --presence-penalty --frequency-penalty
  --dry-multiplier --dry-base --dry-allowed-length --dry-penalty-last-n --dry-sequence-breaker
  --adaptive-target --adaptive-decay --dynatemp-range --dynatemp-exp --mirostat --mirostat-lr --mirostat-ent
  -l --logit-bias --grammar -j --json-schema
  -td --threads-draft --spec-draft-threads -tbd --threads-batch-draft --spec-draft-threads-batch
  -otd --override-tensor-draft --spec-draft-override-tensor
  -ncmoed --n-cpu-moe-draft --spec-draft-n-cpu-moe --spec-draft-ncmoe
  -ctkd --cache-type-k-draft --spec-draft-type-k -ctvd --cache-type-v-draft --spec-draft-type-v
  --spec-draft-n-max --spec-draft-n-min --spec-draft-n-ubatch --spec-draft-p-split --draft-p-split
  --spec-draft-p-min --draft-p-min --spec-draft-sampling -devd --device-draft --spec-draft-device
  -ngld --gpu-layers-draft --n-gpu-layers-draft --spec-draft-ngl --spec-type
  --draft --draft-n --draft-max --draft-min --draft-n-min
  --spec-ngram-mod-n-min --spec-ngram-mod-n-max --spec-ngram-mod-n-match
  --spec-ngram-simple-size-n --spec-ngram-simple-size-m --spec-ngram-simple-min-hits
  --spec-ngram-map-k-size-n --spec-ngram-map-k-size-m --spec-ngram-map-k-min-hits
  --spec-ngram-map-k4v-size-n --spec-ngram-map-k4v-size-m --spec-ngram-map-k4v-min-hits
  --kv-unified-per-slot -ctxcp --ctx-checkpoints --swa-checkpoints -cms --checkpoint-min-step -cram --cache-ram
  -r --reverse-prompt --pooling -np --parallel -mmdev --mmproj-device --image-min-tokens --image-max-tokens
  --mtmd-batch-max-tokens --video-fps --video-timestamp-interval --embd-normalize -to --timeout --sse-ping-interval
  --cache-reuse --chat-template --chat-template-kwargs --reasoning-format -rea --reasoning --reasoning-effort
  --reasoning-budget --reasoning-budget-message -sps --slot-prompt-similarity -a --alias
`);

/** What Tug decides, and where to say it instead. */
const OWNED: Readonly<Record<string, string>> = {
  "--host": "Leave it out: an engine listens where the runner expects it.",
  "--port": "Leave it out: an engine listens where the runner expects it.",
  "--model": "Name the model by its reference.",
  "-m": "Name the model by its reference.",
  "--mmproj": "Package the projector with the model (`tug package --mmproj FILE`).",
  "-mm": "Package the projector with the model (`tug package --mmproj FILE`).",
  "--chat-template-file":
    "Package the template with the model (`tug package --chat-template FILE`).",
  "--model-draft": "Name the draft model in the model's settings.",
  "-md": "Name the draft model in the model's settings.",
  "--spec-draft-model": "Name the draft model in the model's settings.",
  "--sleep-idle-seconds": "Use the keep-alive of the model instead.",
};

/**
 * @param flags already split into words; `--flag=value` is accepted and split, which llama-server itself does not do
 * @returns the words to pass on
 * @throws usage for a flag that is not allowed, a missing value, or a value without a flag
 */
export function checkFlags(flags: readonly string[]): readonly string[] {
  const checked: string[] = [];
  for (let index = 0; index < flags.length; index += 1) {
    const [name, inline] = splitFlag(flags[index] ?? "");
    if (SWITCHES.has(name) && inline === undefined) {
      checked.push(name);
      continue;
    }
    if (!VALUED.has(name)) throw refusal(name, inline);
    if (inline === undefined) index += 1;
    const value = inline ?? flags[index];
    if (value === undefined || isFlag(value)) {
      throw new AppError("usage", `cannot use the flag \`${name}\`: it needs a value`, {
        hint: `Write \`${name} VALUE\`.`,
      });
    }
    checked.push(name, value);
  }
  return checked;
}

// --- internal ---

function words(text: string): ReadonlySet<string> {
  return new Set(text.trim().split(/\s+/));
}

function isFlag(word: string): boolean {
  return /^--?[a-zA-Z]/.test(word);
}

/** `["--top-k", "40"]` of `--top-k=40`; the value is undefined where the word has none. */
function splitFlag(word: string): readonly [string, string | undefined] {
  const equals = isFlag(word) ? word.indexOf("=") : -1;
  return equals === -1 ? [word, undefined] : [word.slice(0, equals), word.slice(equals + 1)];
}

function refusal(name: string, inline: string | undefined): AppError {
  if (SWITCHES.has(name)) {
    return new AppError("usage", `cannot use the flag \`${name}=${inline}\`: it takes no value`, {
      hint: `Write \`${name}\` alone.`,
    });
  }
  if (!isFlag(name)) {
    return new AppError("usage", `cannot use \`${name}\` as a runtime flag: no flag precedes it`, {
      hint: "Write flags as `--name VALUE`.",
    });
  }
  const owned = Object.hasOwn(OWNED, name) ? OWNED[name] : undefined;
  return new AppError(
    "usage",
    `cannot use the flag \`${name}\`: ${owned === undefined ? "it is not among those a model may set" : "Tug sets it itself"}`,
    { hint: owned ?? "Leave it out; flags that name files, hosts or tools are never allowed." },
  );
}
