/**
 * A runner process with one supervisor and fake engines, to be killed. Arguments: a directory, then one runtime flag
 * a model to load; `idle` instead unloads everything again. With `CONFINED` set engines are isolated. Prints `{"pids":[…]}` when all are loaded.
 */
import { join } from "node:path";

import { chooseSandbox } from "../../src/runtime/sandbox/index.ts";
import { Supervisor } from "../../src/runtime/supervisor.ts";
import { StateDatabase } from "../../src/state/database.ts";
import { WorkerRecords } from "../../src/state/worker-records.ts";
import { fakeBackend, fakeInstallation } from "./backend.ts";
import { fakePlan } from "./plan.ts";

const [directory = ".", ...flags] = process.argv.slice(2);
const isIdleWanted = flags[0] === "idle";
const records = new WorkerRecords(new StateDatabase(join(directory, "tug.db")));
const supervisor = new Supervisor({
  backends: [fakeBackend()],
  installer: {
    ensure: () => Promise.resolve(fakeInstallation()),
    active: () => Promise.resolve(fakeInstallation()),
  },
  runDirectory: directory,
  logDirectory: join(directory, "logs"),
  pidStore: records,
  limits: { maxWorkers: 8, queueLimit: 512, keepAliveMs: 300_000 },
  cores: 1,
  ...(process.env["CONFINED"] === undefined
    ? {}
    : {
        sandbox: () =>
          chooseSandbox({
            mode: "require",
            platform: process.platform,
            env: process.env,
          }),
      }),
});
const leases = await Promise.all(
  (isIdleWanted ? ["--stderr=hello"] : flags).map((flag) =>
    supervisor.acquire({
      plan: fakePlan({ model: flag, flags: [flag] }),
      signal: new AbortController().signal,
    }),
  ),
);
console.log(JSON.stringify({ pids: supervisor.list().map(({ pid }) => pid) }));
if (isIdleWanted) {
  for (const lease of leases) lease[Symbol.dispose]();
  await supervisor.unload({ all: true });
  // From here on nothing may keep the process alive.
}
