/** Yes and no in the query of a request. */
import { AppError } from "../errors.ts";

/**
 * A bare key is true, as in `?force`; without it, false. Otherwise what Go's `strconv.ParseBool` takes, in any case.
 *
 * @throws invalid_request
 */
export function readFlag(
  { req }: { readonly req: { query(name: string): string | undefined } },
  name: string,
): boolean {
  const value = req.query(name);
  if (value === undefined || /^(?:false|f|0)$/i.test(value)) return false;
  if (/^(?:true|t|1|)$/i.test(value)) return true;
  const reason = `\`${name}\` must be true or false`;
  throw new AppError("invalid_request", `cannot read the query: ${reason}`, {
    hint: `Write \`${name}=true\`.`,
  });
}
