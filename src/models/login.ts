/** Tries a credential at its registry, and keeps it if it is good. */
import type { LoginRequest, LoginResult, LogoutResult } from "../api/models.ts";
import { AppError } from "../errors.ts";
import { parseRegistryHost } from "../oci/reference.ts";
import type { Remotes } from "./remotes.ts";

/** Longer than any token in use; headers have limits too. Characters. */
const MAX_SECRET_LENGTH = 16 * 1024;

/** @throws usage, unauthorized, registry_unavailable, offline */
export async function login(
  { registry, credentials }: Remotes,
  request: LoginRequest,
  { signal }: { signal: AbortSignal },
): Promise<LoginResult> {
  const host = parseRegistryHost(request.registry);
  const { username, password } = request;
  if (username === "" || username.includes(":")) {
    throw new AppError(
      "usage",
      `cannot log in to \`${host}\`: the user name is empty or has a colon`,
      {
        hint: "Give the name of your account with `-u NAME`.",
      },
    );
  }
  if (password === "" || password.length > MAX_SECRET_LENGTH) {
    throw new AppError("usage", `cannot log in to \`${host}\`: the password is empty or too long`, {
      hint: "Give a password or an access token, such as `tug login HOST -u NAME --password-stdin < FILE`.",
    });
  }
  await registry.check(host, { username, password }, { signal });
  const keptIn = await credentials.save(host, { username, password }, { signal });
  return { registry: host, username, kept_in: keptIn };
}

/** Removes what `login` keeps. What others have written, and the environment, stay as they are: the result says so. */
export async function logout(
  { credentials }: Pick<Remotes, "credentials">,
  registryName: string,
  options: { signal: AbortSignal },
): Promise<LogoutResult> {
  const host = parseRegistryHost(registryName);
  const removedFrom = await credentials.remove(host, options);
  const rest = await credentials.find(host, options);
  return {
    registry: host,
    removed_from: removedFrom ?? null,
    remains_in: rest?.source ?? null,
  };
}
