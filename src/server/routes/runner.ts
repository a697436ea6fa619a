/** The runner itself: what it is, and asking it to leave. */
import { Hono } from "hono";
import { AppError } from "../../errors.ts";
import type { AppDeps, AppEnv, RunnerControl } from "../deps.ts";
import { readFlag } from "../query-flag.ts";

export function runnerRoutes({ runner }: AppDeps): Hono<AppEnv> {
  const app = new Hono<AppEnv>();
  app.get("/runner", async (c) => c.json(await present(runner).info()));
  app.post("/runner/stop", (c) => {
    if (c.env?.trusted !== true) {
      throw new AppError("forbidden", "cannot stop the runner: only its user may", {
        hint: "Run `tug stop-runner` on its machine.",
      });
    }
    const pid = c.req.query("pid");
    // Meant for the runner before this one, which has left meanwhile.
    if (pid !== undefined && pid !== String(process.pid)) return c.body(null, 202);
    present(runner).stop({ force: readFlag(c, "force") });
    return c.body(null, 202);
  });
  return app;
}

// --- internal ---

function present(runner: RunnerControl | undefined): RunnerControl {
  if (runner !== undefined) return runner;
  throw new AppError("runner_unreachable", "the runner is not running", {
    hint: "It starts by itself with `tug run`; `tug start-runner` starts it now.",
  });
}
