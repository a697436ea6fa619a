/**
 * The three functions of the metadata proposal that `@peculiar/x509`'s container of dependencies calls. They come before
 * the library, which refuses to load without them.
 *
 * @see https://rbuckton.github.io/reflect-metadata/
 */

type Metadata = Map<unknown, unknown>;

const stored = new WeakMap<object, Metadata>();

/** Adds them to `Reflect`, unless somebody has. */
export function installReflectMetadata(): void {
  const target = Reflect as unknown as Record<string, unknown>;
  if (target["getMetadata"] !== undefined) return;
  Object.assign(target, { defineMetadata, getMetadata, getOwnMetadata });
}

// --- internal ---

function defineMetadata(key: unknown, value: unknown, target: object): void {
  const own: Metadata = stored.get(target) ?? new Map<unknown, unknown>();
  stored.set(target, own.set(key, value));
}

function getOwnMetadata(key: unknown, target: object): unknown {
  return stored.get(target)?.get(key);
}

function getMetadata(key: unknown, target: object): unknown {
  for (
    let at: object | null = target;
    at !== null;
    at = Object.getPrototypeOf(at) as object | null
  ) {
    const own = stored.get(at);
    if (own?.has(key) === true) return own.get(key);
  }
  return undefined;
}
