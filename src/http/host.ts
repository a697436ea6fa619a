/** What a host's name says about it. */

/** Whether it is this machine: `localhost`, `127.0.0.0/8`, `::1`, each with or without a port. */
export function isLoopback(host: string): boolean {
  const name = withoutPort(host);
  return (
    name === "localhost" ||
    name.endsWith(".localhost") ||
    name === "[::1]" ||
    /^127(?:\.\d{1,3}){3}$/.test(name)
  );
}

/** Lower case; an IPv6 address keeps its brackets. */
export function withoutPort(host: string): string {
  return host.toLowerCase().replace(/:\d+$/, "");
}

/** Untrusted text for a message: one line, no control characters, at most 200 characters. */
export function printable(text: string): string {
  const line = text.replaceAll(UNPRINTABLE, " ").replaceAll(/\s+/g, " ").trim();
  return line.length > MAX_SHOWN ? `${line.slice(0, MAX_SHOWN)}…` : line;
}

/** An address for messages and the log: without userinfo, query and fragment, where secrets are. */
export function shownUrl(url: string): string {
  const parsed = URL.parse(url);
  return parsed === null ? "an unreadable address" : printable(parsed.origin + parsed.pathname);
}

// --- internal ---

const MAX_SHOWN = 200;

/** Controls, and the marks that reorder or hide what follows on a terminal. */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu;
