/** Where a runner listens, and whether callers there need a key. */
import { AppError } from "../../errors.ts";

/** @param hostname an address or name that a listener is bound to */
export function isLoopback(hostname: string): boolean {
  return /^(?:localhost|127\.\d{1,3}\.\d{1,3}\.\d{1,3}|::1|\[::1\])$/i.test(hostname);
}

/** Others could use the runner, and nobody has a key. */
export function missingKey(hostname: string): AppError {
  return new AppError("usage", `cannot listen on \`${hostname}\` without an API key`, {
    hint: "Make one with `tug key create NAME`, or give one with `--api-key KEY` or TUG_API_KEY; callers send it as `Authorization: Bearer KEY`.",
  });
}
