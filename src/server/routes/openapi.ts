/** `GET /openapi.json`: what the API is, for programs. Made when somebody first asks, and kept as the bytes it is sent as. */
import { Hono } from "hono";
import type { AppDeps, AppEnv } from "../deps.ts";

export function openapiRoutes({ version }: Pick<AppDeps, "version">): Hono<AppEnv> {
  const app = new Hono<AppEnv>();
  let made: Promise<Uint8Array<ArrayBuffer>> | undefined;
  app.get("/openapi.json", async (c) => {
    made ??= describe(version);
    return c.body(await made, 200, { "content-type": "application/json" });
  });
  return app;
}

// --- internal ---

async function describe(version: string): Promise<Uint8Array<ArrayBuffer>> {
  const { describeApi } = await import("../openapi/document.ts");
  return new TextEncoder().encode(JSON.stringify(describeApi(version)));
}
