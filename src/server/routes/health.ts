/** Liveness, readiness and version: for supervisors, load balancers and clients that look for a runner. */
import { Hono } from "hono";
import { AppError } from "../../errors.ts";
import type { AppDeps, AppEnv } from "../deps.ts";

export function healthRoutes({ runtime, runner, version }: AppDeps): Hono<AppEnv> {
  const app = new Hono<AppEnv>();
  app.get("/", (c) => c.text("Tug is running"));
  app.get("/version", (c) => {
    if (runner === undefined) return c.json({ version });
    return c.json({ version, pid: process.pid, stopping: runner.isStopping });
  });
  app.get("/health", (c) => c.json({ status: "ok" }));
  app.get("/health/live", (c) => c.json({ status: "ok" }));
  app.get("/health/ready", (c) => {
    if (runtime === undefined) {
      throw new AppError("runner_unreachable", "cannot run models: no runner is running");
    }
    return c.json({ status: "ok" });
  });
  return app;
}
