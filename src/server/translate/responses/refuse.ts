/** What a request cannot have. */
import { AppError } from "../../../errors.ts";

/** @param field as it stands in the request, such as `input.0.content` */
export function refuse(field: string, reason: string, hint?: string): AppError {
  return new AppError("invalid_request", `cannot read the request: \`${field}\`: ${reason}`, {
    hint,
    details: { param: field },
  });
}

/** What a request names and nobody has. @param field as it stands in the request */
export function missing(field: string, what: string, hint: string): AppError {
  return new AppError("not_found", `cannot find ${what}`, { hint, details: { param: field } });
}
