import { BINARY, ensureCompiled } from "../../scripts/compile/freshness.ts";

let ready: Promise<string> | undefined;

/** Path of `dist/tug`, compiled first if it is missing or older than the sources; once per process. */
export function tugBinary(): Promise<string> {
  ready ??= ensureCompiled().then(() => BINARY);
  return ready;
}
