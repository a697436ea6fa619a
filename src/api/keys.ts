/** `/keys`: who may ask a runner that others can reach. */

/** What a key may do; `admin` includes the others. */
export type KeyScope = "inference" | "models" | "admin";

export const KEY_SCOPES: readonly KeyScope[] = ["inference", "models", "admin"];

/** A key as lists show it: never the key itself. */
export interface ApiKeyInfo {
  readonly name: string;
  /** How the key begins, to tell keys apart. */
  readonly prefix: string;
  readonly scopes: readonly KeyScope[];
  /** RFC 3339, as all times here. */
  readonly created: string;
  /** Null: never. */
  readonly expires: string | null;
  readonly expired: boolean;
  /** To the minute; null: never. */
  readonly last_used: string | null;
  /** Requests at once; null: no limit. */
  readonly max_concurrent: number | null;
  /** Requests a minute; null: no limit. */
  readonly rate_per_minute: number | null;
}

/** `POST /keys` */
export interface CreateKeyRequest {
  readonly name: string;
  /** Default: `inference`. */
  readonly scopes?: readonly KeyScope[];
  /** RFC 3339, in the future; null or absent: never. */
  readonly expires?: string | null;
  readonly max_concurrent?: number | null;
  readonly rate_per_minute?: number | null;
}

/** The only answer that has the key: it is not kept. */
export interface CreatedKey extends ApiKeyInfo {
  readonly key: string;
}

/** `POST /keys/revoke` */
export interface RevokeKeysRequest {
  readonly names: readonly string[];
}

export interface RevokedKeys {
  readonly revoked: readonly string[];
  /** Names that no key has. */
  readonly unknown: readonly string[];
}
