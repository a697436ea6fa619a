/** Another process that uses `tug.db`, until it ends or the test kills it: `bun state-process.ts ROLE PATH [NAME]`. */
import type { ConfigureRequest } from "../../src/api/settings.ts";
import { StateDatabase } from "../../src/state/database.ts";
import { Ledger } from "../../src/state/ledger.ts";
import { StoredSettings } from "../../src/state/model-settings.ts";

const WRITES = 100;

const [, , role = "", path = "", name = ""] = process.argv;
using state = new StateDatabase(path);
const settings = new StoredSettings(state);

/** A setting of the test's own: what this Tug does not know is kept as well. */
function patch(key: string, value: unknown): ConfigureRequest["set"] {
  return { [key]: value };
}

const ROLES: Readonly<Record<string, () => void>> = {
  /** Sets its own keys of one model, one after the other. */
  set() {
    for (let index = 0; index < WRITES; index += 1) {
      settings.set("sha256:shared", null, patch(`${name}-${index}`, index));
    }
  },
  /** Records a peak that grows. */
  record() {
    const ledger = new Ledger(state);
    for (let index = 1; index <= WRITES; index += 1) ledger.record("shared", { [name]: index });
  },
  /** Counts upwards for ever, and says each number that is stored. */
  count() {
    for (let count = 1; ; count += 1) {
      settings.set("sha256:counted", null, {
        ...patch("count", count),
        ...patch(`filler`, "x".repeat(9000)),
      });
      process.stdout.write(`${count}\n`);
    }
  },
};

ROLES[role]?.();
