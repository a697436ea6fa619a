/** What this machine is called and where it is reached: the names of its certificate. Pure. */
import { isIP } from "node:net";

/** Names and addresses, IPv6 without brackets. The first is the subject. */
export type CertificateNames = readonly string[];

export interface MachineNames {
  readonly hostname: string;
  /** Of all interfaces. */
  readonly addresses: readonly string[];
  /** What the listener is bound to, and what the user calls this machine besides. */
  readonly others: readonly string[];
}

/** A machine with hundreds of virtual interfaces keeps a certificate that fits a handshake. */
const MAX_ADDRESSES = 32;
/** Always, so that the certificate does not depend on how the runner is started. */
const ALWAYS: CertificateNames = ["localhost", "host.docker.internal", "127.0.0.1", "::1"];

/**
 * @param domains that the authority may sign for: a name elsewhere would make the whole certificate invalid
 * @returns what the certificate is for, and what had to be left out
 */
export function certificateNames(
  { hostname, addresses, others }: MachineNames,
  domains: readonly string[],
): { readonly names: CertificateNames; readonly leftOut: readonly string[] } {
  const wanted = [...others, hostname].map((name) => name.toLowerCase().replaceAll(/[[\]]/g, ""));
  const usable = wanted.filter((name) => isAddress(name) || isName(name));
  const own = addresses.filter((address) => isPermitted(address, domains)).slice(0, MAX_ADDRESSES);
  const names = usable.filter((name) => isPermitted(name, domains));
  return {
    names: [...new Set([...ALWAYS, ...names, ...own])],
    leftOut: [...new Set(usable.filter((name) => !names.includes(name) && !isUnspecified(name)))],
  };
}

export function isAddress(name: string): boolean {
  return isIP(name) !== 0;
}

/** A name of the DNS, which a certificate can carry. */
export function isName(name: string): boolean {
  return name.length <= 253 && /^(?!-)[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})*$/i.test(name);
}

/** @param address as `isIP` accepts it; a zone is left out */
export function addressBytes(address: string): number[] {
  if (isIP(address) === 4) return address.split(".").map(Number);
  const [head = "", tail = ""] = address.replace(/%.*$/, "").split("::");
  const start = groupBytes(head);
  const end = groupBytes(tail);
  return [...start, ...Array<number>(Math.max(0, 16 - start.length - end.length)).fill(0), ...end];
}

// --- internal ---

/** Of groups of IPv6, the last of which may be written as IPv4. */
function groupBytes(text: string): number[] {
  return text.split(":").flatMap((group) => {
    if (group === "") return [];
    if (group.includes(".")) return group.split(".").map(Number);
    const number = Number.parseInt(group, 16);
    return [number >> 8, number & 0xff];
  });
}

function isPermitted(name: string, domains: readonly string[]): boolean {
  if (isAddress(name)) return !isUnspecified(name);
  return domains.some((domain) => name === domain || name.endsWith(`.${domain}`));
}

function isUnspecified(name: string): boolean {
  return name === "0.0.0.0" || name === "::";
}
