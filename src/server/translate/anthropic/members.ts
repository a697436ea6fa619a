/** Members of a request that are made of members that may be missing. */
import { AppError } from "../../../errors.ts";

export type Members = Readonly<Record<string, unknown>>;

/** Those that the client gave. */
export function given(members: Members): Members {
  return Object.fromEntries(
    Object.entries(members).filter(([, value]) => value !== undefined && value !== null),
  );
}

export function invalid(reason: string): AppError {
  return new AppError("invalid_request", `cannot read the request: ${reason}`);
}
