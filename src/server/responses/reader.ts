/**
 * Who may read a response that is kept: who has the key that asked for it, the runner's own user, and keys for `admin`.
 * What was asked without a key is for all who need none.
 */
import type { Context } from "hono";
import { maySeePrompts } from "../auth.ts";
import type { AppEnv } from "../deps.ts";

export interface Reader {
  /** Of the API key; null: it has shown none, or the one that is good for everything. */
  readonly name: string | null;
  readonly seesAll: boolean;
}

export function readerOf(c: Context<AppEnv>): Reader {
  return { name: c.get("caller")?.name ?? null, seesAll: maySeePrompts(c) };
}

/** @param owner of a response */
export function maySee({ name, seesAll }: Reader, owner: string | null): boolean {
  return seesAll || name === owner;
}
