/** `/registries`: who this user is towards registries. Credentials of this machine are nobody else's to set. */
import { type Context, Hono } from "hono";
import * as v from "valibot";
import { AppError } from "../../errors.ts";
import type { AppEnv, Distribution } from "../deps.ts";
import { parseBody } from "../request-body.ts";

export const LoginBody = v.strictObject({
  registry: v.string(),
  username: v.string(),
  password: v.string(),
  insecure: v.exactOptional(v.boolean()),
});

export const LogoutBody = v.strictObject({ registry: v.string() });

/** Mounted at `/registries`. Errors are thrown as `AppError`, for the app to render. */
export function registryRoutes(distribution: Pick<Distribution, "login" | "logout">): Hono<AppEnv> {
  const routes = new Hono<AppEnv>();
  routes.post("/login", async (c) => {
    requireTrusted(c, "log in");
    const { value } = await parseBody(c.req.raw, LoginBody);
    return c.json(await distribution.login(value, { signal: c.req.raw.signal }));
  });
  routes.post("/logout", async (c) => {
    requireTrusted(c, "log out");
    const { value } = await parseBody(c.req.raw, LogoutBody);
    return c.json(await distribution.logout(value.registry, { signal: c.req.raw.signal }));
  });
  return routes;
}

// --- internal ---

function requireTrusted(c: Context<AppEnv>, what: string): void {
  if (c.env?.trusted === true) return;
  throw new AppError("forbidden", `cannot ${what}: this client may not change credentials`, {
    hint: "Run `tug login` on the machine itself.",
  });
}
