/** Which browser origins may ask. Pure. */

/** `listed` came from the list, `any` from a `*` in it. */
export type OriginVerdict = "loopback" | "listed" | "any" | "refused";

/** A host name has 253 characters at most, a scheme of an app is short; what is longer is nobody's origin. */
const MAX_ORIGIN_CHARACTERS = 300;

/**
 * A page that this machine serves on a port of loopback may ask: whoever serves it could ask without a browser, too.
 *
 * @param patterns as `parseOrigins` returns them
 * @returns the judge of an Origin header; `null` (a sandboxed page, a file) is refused unless it or everything is listed
 */
export function createOriginJudge(patterns: readonly string[]): (origin: string) => OriginVerdict {
  const isListed = patterns.filter((pattern) => pattern !== "*").map(toMatcher);
  const allowsAny = patterns.includes("*");
  return (given) => {
    if (given.length > MAX_ORIGIN_CHARACTERS) return "refused";
    const origin = given.toLowerCase();
    if (isLoopbackOrigin(origin)) return "loopback";
    if (isListed.some((matches) => matches.test(origin))) return "listed";
    return allowsAny ? "any" : "refused";
  };
}

/** @param name in lower case, IPv6 in brackets. `0.0.0.0` and `[::]` reach this machine only, as browsers treat them. */
export function isLoopbackName(name: string): boolean {
  if (name === "localhost" || name.endsWith(".localhost")) return true;
  if (name === "[::1]" || name === "[::]" || name === "0.0.0.0") return true;
  return /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(name);
}

// --- internal ---

function isLoopbackOrigin(origin: string): boolean {
  if (!/^https?:\/\/[^/?#@\\\s]+$/.test(origin)) return false;
  const url = URL.parse(origin);
  return url !== null && isLoopbackName(url.hostname);
}

const ANY_HOST = String.raw`://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])`;
/** An app's scheme may stand alone: pages in Electron and Cordova say `file://`. */
const ANY_APP = String.raw`://(?:[a-z0-9._-]+(?::\d+)?)?`;

/** A `*` stands for a port, for labels in front of a name, or for a whole host; everything else is literal. */
function toMatcher(pattern: string): RegExp {
  const source = pattern
    .replaceAll(/[.+?^${}()|[\]\\]/g, String.raw`\$&`)
    .replace(/:\*$/, String.raw`(?::\d+)?`)
    .replace(String.raw`://*\.`, String.raw`://(?:[a-z0-9_-]+\.)+`)
    .replace("://*", /^https?:/.test(pattern) ? ANY_HOST : ANY_APP);
  return new RegExp(`^${source}$`);
}
