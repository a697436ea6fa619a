/** Bytes by device: what a worker needs, what all hold, what a device may give. Pure. */

/** `ram`, or one GPU: `cuda:0`, `rocm:1`, `vulkan:0`, `metal:0`. Where memory is unified everything is `ram`. */
export type DeviceId = string;

/** A device that is not named counts as 0. */
export type Demand = Readonly<Record<DeviceId, number>>;

export const NOTHING: Demand = Object.freeze({});

export function sumDemands(demands: Iterable<Demand>): Demand {
  const sum: Record<DeviceId, number> = {};
  for (const demand of demands) {
    for (const [device, bytes] of Object.entries(demand)) sum[device] = (sum[device] ?? 0) + bytes;
  }
  return sum;
}

/** The larger of both on each device. */
export function maxDemand(one: Demand, other: Demand): Demand {
  const max: Record<DeviceId, number> = { ...one };
  for (const [device, bytes] of Object.entries(other)) {
    max[device] = Math.max(max[device] ?? 0, bytes);
  }
  return max;
}

/** The smaller of both on each device; nothing on a device that only one of them names. */
export function minDemand(one: Demand, other: Demand): Demand {
  const min: Record<DeviceId, number> = {};
  for (const [device, bytes] of Object.entries(one)) {
    const least = Math.min(bytes, other[device] ?? 0);
    if (least > 0) min[device] = least;
  }
  return min;
}

/** On each device `factor` times as much, in whole bytes. */
export function scaleDemand(demand: Demand, factor: number): Demand {
  const scaled = Object.entries(demand).map(([device, bytes]) => [
    device,
    Math.ceil(bytes * factor),
  ]);
  return Object.fromEntries(scaled) as Demand;
}

/**
 * What `demand` needs beyond `room`, device by device; empty if it fits. A device it needs nothing of is not missing,
 * however overdrawn it is.
 */
export function shortage(demand: Demand, room: Demand): Demand {
  const missing: Record<DeviceId, number> = {};
  for (const [device, bytes] of Object.entries(demand)) {
    if (bytes <= 0) continue;
    const lack = bytes - (room[device] ?? 0);
    if (lack > 0) missing[device] = lack;
  }
  return missing;
}

/** What is left of a budget beside what is held; negative where more is held. */
export function remaining(budget: Demand, held: Demand): Demand {
  const room: Record<DeviceId, number> = {};
  for (const [device, bytes] of Object.entries(budget)) room[device] = bytes - (held[device] ?? 0);
  return room;
}

/** Whether a device exists that both hold bytes of. */
export function sharesDevice(one: Demand, other: Demand): boolean {
  return Object.entries(one).some(([device, bytes]) => bytes > 0 && (other[device] ?? 0) > 0);
}

/** Only amounts that can be compared: not negative, not NaN. `Infinity` is one: it fits nowhere. */
export function isDemand(demand: Demand): boolean {
  return Object.values(demand).every((bytes) => bytes >= 0);
}

export function isNothing(demand: Demand): boolean {
  return Object.values(demand).every((bytes) => bytes <= 0);
}

/** Of all devices together. */
export function totalBytes(demand: Demand): number {
  return Object.values(demand).reduce((sum, bytes) => sum + bytes, 0);
}

/** For people: `5.20GB of memory and 900.00MB on cuda:0`. Devices without bytes are named only if all are. */
export function describeDemand(demand: Demand): string {
  const all = Object.entries(demand);
  const some = all.filter(([, bytes]) => bytes > 0);
  const parts = (some.length > 0 ? some : all).map(([device, bytes]) => {
    return `${inUnits(Math.max(0, bytes))} ${device === "ram" ? "of memory" : `on ${device}`}`;
  });
  return parts.length === 0 ? "nothing" : parts.join(" and ");
}

// --- internal ---

const UNITS = ["kB", "MB", "GB", "TB", "PB"] as const;

/** Decimal units, two decimals, as sizes of models are shown. */
function inUnits(bytes: number): string {
  if (!Number.isFinite(bytes)) return "an unknown amount";
  if (bytes < 1000) return `${Math.round(bytes)}B`;
  const last = UNITS.length - 1;
  const step = Math.min(Math.floor(Math.log10(bytes) / 3) - 1, last);
  // 999.995kB would print as 1000.00kB.
  const shown = bytes / 1000 ** (step + 1) >= 999.995 ? Math.min(step + 1, last) : step;
  return `${(bytes / 1000 ** (shown + 1)).toFixed(2)}${UNITS[shown]}`;
}
