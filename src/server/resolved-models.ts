/** Names resolved once for as long as the store does not change: with 16 requests at once, reading it costs each 2 ms. */
import { statSync } from "node:fs";
import { isAbsolute } from "node:path";
import type { AppDeps } from "./deps.ts";

type Resolve = AppDeps["resolve"];

/** Every name a client makes up takes a place, until it turns out to be nobody's. */
const MAX_NAMES = 256;

/**
 * @param indexFile the store's index, replaced as a whole whenever a tag or a model changes
 * @returns a `resolve` that gives the same model for a name until the index is another file. Paths and failures are not
 *   remembered.
 */
export function rememberResolved(resolve: Resolve, indexFile: string): Resolve {
  const known = new Map<string, ReturnType<Resolve>>();
  let version: string | undefined;
  return (name, options) => {
    if (isAbsolute(name)) return resolve(name, options);
    const current = versionOf(indexFile);
    if (current !== version || known.size >= MAX_NAMES) known.clear();
    version = current;
    const remembered = known.get(name);
    if (remembered !== undefined) return remembered;
    const resolved = resolve(name, options);
    known.set(name, resolved);
    resolved.catch(() => {
      if (known.get(name) === resolved) known.delete(name);
    });
    return resolved;
  };
}

// --- internal ---

/** A renamed-over file has another inode, if not another time. */
function versionOf(path: string): string | undefined {
  const facts = statSync(path, { bigint: true, throwIfNoEntry: false });
  return facts === undefined ? undefined : `${facts.ino} ${facts.mtimeNs} ${facts.size}`;
}
