/** `/keys`: making, listing and revoking API keys. For the runner's own user, and for keys with the scope `admin`. */
import { type Context, Hono } from "hono";
import * as v from "valibot";
import { type ApiKeyInfo, type CreatedKey, KEY_SCOPES, type RevokedKeys } from "../../api/keys.ts";
import { AppError } from "../../errors.ts";
import type { NewKey } from "../../state/api-keys.ts";
import { maySeePrompts } from "../auth.ts";
import type { AppDeps, AppEnv, KeyStore } from "../deps.ts";
import { parseBody } from "../request-body.ts";

/** Names are shown in tables and typed in shells. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
/** More is no limit. */
const MAX_LIMIT = 1_000_000;
const MAX_SHOWN = 80;
/** Of one request. */
const MAX_NAMES = 1000;

const Limit = v.nullish(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(MAX_LIMIT)));

export const CreateKeyBody = v.strictObject({
  name: v.string(),
  scopes: v.exactOptional(v.pipe(v.array(v.picklist(KEY_SCOPES)), v.minLength(1))),
  expires: v.pipe(v.nullish(v.string()), v.description("RFC 3339; null: never")),
  max_concurrent: Limit,
  rate_per_minute: Limit,
});

export const RevokeKeysBody = v.strictObject({
  names: v.pipe(v.array(v.string()), v.minLength(1), v.maxLength(MAX_NAMES)),
});

export function keyRoutes(deps: Pick<AppDeps, "keys">): Hono<AppEnv> {
  const app = new Hono<AppEnv>();
  app.get("/keys", async (c) => c.json<ApiKeyInfo[]>((await open(c, deps)).list()));
  app.post("/keys", async (c) => {
    const keys = await open(c, deps);
    const { value } = await parseBody(c.req.raw, CreateKeyBody);
    return c.json<CreatedKey>(keys.create(toNewKey(value)), 201);
  });
  app.post("/keys/revoke", async (c) => {
    const keys = await open(c, deps);
    const { value } = await parseBody(c.req.raw, RevokeKeysBody);
    const names = [...new Set(value.names)];
    const revoked = keys.revoke(names);
    const unknown = names.filter((name) => !revoked.includes(name));
    return c.json<RevokedKeys>({ revoked, unknown });
  });
  return app;
}

// --- internal ---

/** A port of loopback is every local user's: whoever could make a key there would see what others asked. */
async function open(c: Context<AppEnv>, deps: Pick<AppDeps, "keys">): Promise<KeyStore> {
  if (!maySeePrompts(c)) {
    throw new AppError("forbidden", "cannot manage API keys: only the runner's user may", {
      hint: "Run `tug key` on the machine itself, or send a key with the scope `admin`.",
    });
  }
  const keys = await deps.keys?.();
  if (keys !== undefined) return keys;
  throw new AppError("not_supported", "cannot manage API keys: none are kept here");
}

/** @throws invalid_request */
function toNewKey(body: v.InferOutput<typeof CreateKeyBody>): NewKey {
  if (!NAME.test(body.name)) {
    throw invalid(
      `\`${shown(body.name)}\` is no name for one`,
      "Use up to 64 letters, digits, dots, dashes and underscores, with a letter or digit first.",
    );
  }
  return {
    name: body.name,
    scopes: KEY_SCOPES.filter((scope) => (body.scopes ?? ["inference"]).includes(scope)),
    expiresAtMs: toExpiry(body.expires),
    maxConcurrent: body.max_concurrent ?? null,
    ratePerMinute: body.rate_per_minute ?? null,
  };
}

function toExpiry(text: string | null | undefined): number | null {
  if (text === null || text === undefined) return null;
  const isTime = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)$/i.test(text);
  const atMs = isTime ? Date.parse(text) : Number.NaN;
  if (!Number.isFinite(atMs)) {
    throw invalid(`\`${shown(text)}\` is no time`, "Write it as `2030-01-31T12:00:00Z`.");
  }
  if (atMs > Date.now()) return atMs;
  throw invalid(`\`${shown(text)}\` is past`, "Give a time in the future.");
}

function invalid(reason: string, hint: string): AppError {
  return new AppError("invalid_request", `cannot create the API key: ${reason}`, { hint });
}

function shown(text: string): string {
  return text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN)}…` : text;
}
