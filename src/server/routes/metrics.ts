/** `GET /metrics`, for Prometheus and whoever reads its text. */
import { Hono } from "hono";
import { AppError } from "../../errors.ts";
import type { AppEnv } from "../deps.ts";

const CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8";

export interface MetricsSource {
  /** Prometheus's text format 0.0.4. */
  render(): Promise<string>;
}

/** @param metrics undefined where they are turned off, and in a process that is not the runner */
export function metricsRoutes(metrics: MetricsSource | undefined): Hono<AppEnv> {
  const app = new Hono<AppEnv>();
  app.get("/metrics", async (c) => {
    if (metrics === undefined) {
      throw new AppError("not_found", "cannot show metrics: they are turned off", {
        hint: "Set `metrics = true` in config.toml, or TUG_METRICS=1, and restart the runner.",
      });
    }
    return c.body(await metrics.render(), 200, { "content-type": CONTENT_TYPE });
  });
  return app;
}
