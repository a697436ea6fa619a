/** Replaced with the version of package.json by scripts/compile; a source checkout says `dev`. */
declare const TUG_VERSION: string | undefined;

/** SemVer without a leading `v`, or `0.0.0-dev` when run from source. */
export const VERSION: string = typeof TUG_VERSION === "string" ? TUG_VERSION : "0.0.0-dev";
