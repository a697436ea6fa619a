/** Bytes of a worker, added up by what they are for and by device. */
import type { Demand, DeviceId } from "./demand.ts";

export interface MemoryEstimate {
  /** Bytes by what they are for. */
  readonly parts: Readonly<Record<string, number>>;
  readonly demand: Demand;
  /** Of `demand`, what an engine allocates when it loads and first touches when long prompts come: no peak before has it. */
  readonly growing: Demand;
}

/** Sums by part and by device. */
export class Tally {
  readonly #parts: Record<string, number> = {};
  readonly #demand: Record<DeviceId, number> = {};
  readonly #growing: Record<DeviceId, number> = {};

  add(part: string, device: DeviceId, bytes: number): void {
    const whole = Number.isFinite(bytes) ? Math.ceil(Math.max(0, bytes)) : Number.MAX_SAFE_INTEGER;
    if (whole === 0) return;
    this.#parts[part] = (this.#parts[part] ?? 0) + whole;
    this.#demand[device] = (this.#demand[device] ?? 0) + whole;
  }

  /** What is used by and by. GPUs give their memory when it is allocated. */
  addGrowing(part: string, device: DeviceId, bytes: number): void {
    const before = this.#demand[device] ?? 0;
    this.add(part, device, bytes);
    const added = (this.#demand[device] ?? 0) - before;
    if (device === "ram" && added > 0) this.#growing[device] = (this.#growing[device] ?? 0) + added;
  }

  toEstimate(): MemoryEstimate {
    return { parts: this.#parts, demand: this.#demand, growing: this.#growing };
  }
}
