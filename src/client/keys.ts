/** API keys of a runner through its API. */
import type {
  ApiKeyInfo,
  CreatedKey,
  CreateKeyRequest,
  RevokedKeys,
  RevokeKeysRequest,
} from "../api/keys.ts";
import type { CallOptions, Client } from "./client.ts";

export async function listKeys(client: Client, options: CallOptions): Promise<ApiKeyInfo[]> {
  return (await (await client.call("GET", "/keys", options)).json()) as ApiKeyInfo[];
}

/** The answer is the only one that has the key. */
export async function createKey(
  client: Client,
  body: CreateKeyRequest,
  options: CallOptions,
): Promise<CreatedKey> {
  return (await (await client.call("POST", "/keys", { ...options, body })).json()) as CreatedKey;
}

export async function revokeKeys(
  client: Client,
  body: RevokeKeysRequest,
  options: CallOptions,
): Promise<RevokedKeys> {
  const response = await client.call("POST", "/keys/revoke", { ...options, body });
  return (await response.json()) as RevokedKeys;
}
