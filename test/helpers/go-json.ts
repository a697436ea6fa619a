/**
 * What Go's `encoding/json` makes of an answer: the types that a client of Docker Model Runner declares. It reads names
 * in any case, ignores members it does not know, and takes null for "leave it as it is" unless a type has a decoder of
 * its own.
 *
 * @see https://pkg.go.dev/encoding/json#Unmarshal
 */

/** @returns what would fail, by path */
export type GoType = (value: unknown, path: string) => string[];

const wrong = (path: string, type: string, value: unknown): string[] => [
  `${path}: cannot unmarshal ${JSON.stringify(value)?.slice(0, 80)} into ${type}`,
];

function scalar(name: string, isFine: (value: unknown) => boolean): GoType {
  return (value, path) => (value === null || isFine(value) ? [] : wrong(path, name, value));
}

export const goString = scalar("string", (value) => typeof value === "string");
export const goBool = scalar("bool", (value) => typeof value === "boolean");
export const goInt = scalar("int64", (value) => Number.isSafeInteger(value));
export const goUint = scalar(
  "uint64",
  (value) => Number.isSafeInteger(value) && Number(value) >= 0,
);
export const goInt32 = scalar(
  "int32",
  (value) => Number.isInteger(value) && value === Number(value) >> 0,
);
export const goFloat = scalar("float64", (value) => typeof value === "number");
const goAny: GoType = () => [];
/** RFC 3339. */
export const goTime = scalar("time.Time", (value) =>
  /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)$/.test(String(value)),
);

/** `inference.KeepAlive`, behind a pointer. */
export const goKeepAlive = scalar(
  "KeepAlive",
  (value) => value === "0" || /^-?(?:\d+(?:\.\d*)?(?:ns|us|ms|s|m|h))+$|^-1$/.test(String(value)),
);

/** `inference.BackendMode`: its own decoder sees null as well, and knows no such mode. */
export const goMode: GoType = (value, path) =>
  ["completion", "embedding", "reranking", "image-generation"].includes(String(value))
    ? []
    : wrong(path, "BackendMode", value);

/** Never null here: what lists nothing is an empty list. */
export function goSlice(of: GoType): GoType {
  return (value, path) =>
    Array.isArray(value)
      ? value.flatMap((item, index) => of(item, `${path}[${index}]`))
      : wrong(path, "slice", value);
}

export function goMap(of: GoType): GoType {
  return (value, path) => {
    if (value === null) return [];
    if (typeof value !== "object" || Array.isArray(value)) return wrong(path, "map", value);
    return Object.entries(value).flatMap(([key, item]) => of(item, `${path}.${key}`));
  };
}

/** @param required members without `omitempty` that its readers use */
export function goStruct(
  fields: Readonly<Record<string, GoType>>,
  required: string[] = [],
): GoType {
  const byLowerCase = new Map(
    Object.entries(fields).map(([name, type]) => [name.toLowerCase(), type]),
  );
  return (value, path) => {
    if (value === null) return [];
    if (typeof value !== "object" || Array.isArray(value)) return wrong(path, "struct", value);
    const missing = required.filter((name) => !Object.hasOwn(value, name));
    return [
      ...missing.map((name) => `${path}.${name}: is missing`),
      ...Object.entries(value).flatMap(([key, item]) =>
        (fields[key] ?? byLowerCase.get(key.toLowerCase()) ?? goAny)(item, `${path}.${key}`),
      ),
    ];
  };
}
