/** Quantizations in names of GGUF files. Pure. */
import { basename, dirname } from "./text.ts";

/**
 * What is taken if nobody says, best first: Docker Model Runner's default, then a nearly lossless one, then what is near
 * to the first in size, then better ones, then smaller ones, then the unquantized. Unsloth's `UD-` follows its plain namesake.
 */
const PREFERENCE = [
  "Q4_K_M",
  "Q8_0",
  "Q4_K_XL",
  "Q4_K_L",
  "Q4_K_S",
  "Q4_K",
  "IQ4_NL",
  "IQ4_XS",
  "MXFP4_MOE",
  "MXFP4",
  "Q4_1",
  "Q4_0",
  "Q5_K_M",
  "Q5_K_XL",
  "Q5_K_L",
  "Q5_K_S",
  "Q5_K",
  "Q5_1",
  "Q5_0",
  "Q6_K_L",
  "Q6_K_XL",
  "Q6_K",
  "Q8_K_XL",
  "Q3_K_M",
  "Q3_K_XL",
  "Q3_K_L",
  "Q3_K_S",
  "IQ3_M",
  "IQ3_S",
  "IQ3_XS",
  "IQ3_XXS",
  "Q2_K_L",
  "Q2_K_XL",
  "Q2_K",
  "IQ2_M",
  "BF16",
  "F16",
  "F32",
];

/** Between separators, such as `UD-Q4_K_XL`, `IQ2_XXS`, `MXFP4_MOE`, `bf16`. */
const LABEL =
  /(?:^|[-._/ ])((?:UD-)?(?:I?Q\d{1,2}(?:_(?:K[A-Z]?|\d{1,2}|XXS|XS|S|M|L|XXL|XL|NL|P))*|TQ\d(?:_\d)?|(?:MX|NV)FP4(?:_MOE)?|BF16|FP?16|FP?32))(?=$|[-._/ ])/gi;

/**
 * The quantization that a name tells, in capitals: the last one of the file's name, else that of its directory.
 *
 * @param stem path without the number of a shard and the extension
 */
export function quantizationOf(stem: string): string | undefined {
  return lastLabel(basename(stem)) ?? lastLabel(basename(dirname(stem)));
}

/** Two spellings of one quantization are the same text. */
export function normalizeQuantization(text: string): string {
  return text.toUpperCase().replace(/^FP(?=16$|32$)/, "F");
}

/** Whether the tag is a whole part of the path, between separators: `Q8_0` and `300M-Q8_0` of `x-300M-Q8_0-v2`, not `Q4_K` of `x-Q4_K_M`. */
export function namesPart(stem: string, tag: string): boolean {
  const [path, part] = [stem.toLowerCase(), tag.toLowerCase()];
  for (let at = path.indexOf(part); at !== -1; at = path.indexOf(part, at + 1)) {
    const [before, after] = [path[at - 1] ?? "/", path[at + part.length] ?? "/"];
    if (/[-._/ ]/.test(before) && /[-./ ]/.test(after)) return true;
  }
  return false;
}

/** Lower is better; what is unknown comes last. */
export function preferenceRank(quantization: string | undefined): number {
  const plain = quantization?.replace(/^UD-/, "") ?? "";
  const index = PREFERENCE.indexOf(plain);
  if (index === -1) return PREFERENCE.length * 2;
  return index * 2 + (plain === quantization ? 0 : 1);
}

// --- internal ---

function lastLabel(text: string): string | undefined {
  const label = [...text.matchAll(LABEL)].at(-1)?.[1];
  return label === undefined ? undefined : normalizeQuantization(label);
}
