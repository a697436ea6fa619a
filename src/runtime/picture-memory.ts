/** How many bytes a worker that draws will hold. Pure. */
import type { ModelShape } from "../store/model-shape.ts";
import { type MemoryEstimate, Tally } from "./tally.ts";
import type { Placement } from "./weight-memory.ts";

const MIB = 1024 * 1024;

/**
 * While a picture is decoded, and of the steps before. Measured with the layers of Stable Diffusion 1.5: 1.0 GB at 512 pixels a
 * side, 1.7 GB at 1024. Larger pictures are decoded in tiles.
 */
const DRAWING_BYTES = 2048 * MIB;
/** Of an engine that does not say. */
const PROCESS_BYTES = 1024 * MIB;

/** Weights are where the drawing is done; the process is in main memory, and its libraries' share of a GPU is in the drawing. */
export function estimatePictures(
  { weightBytes }: Pick<ModelShape, "weightBytes">,
  run: { readonly offload: Placement; readonly engineBytes?: number | undefined },
): MemoryEstimate {
  const tally = new Tally();
  const device = run.offload.gpus[0]?.device ?? "ram";
  tally.add("weights", device, weightBytes);
  tally.addGrowing("drawing", device, DRAWING_BYTES);
  tally.add("engine", "ram", run.engineBytes ?? PROCESS_BYTES);
  return tally.toEstimate();
}
