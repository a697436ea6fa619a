/** `tug serve --lan`: addresses of this machine on its networks, and the key that others use there. */
import { networkInterfaces } from "node:os";
import type { CallOptions, Client } from "../client/client.ts";
import { createKey, listKeys, revokeKeys } from "../client/keys.ts";

const KEY_NAME = "lan";
/** A machine has a few networks; containers and virtual machines may have many. */
const MAX_ADDRESSES = 8;
/** Networks that only this machine's containers and virtual machines are in. */
const VIRTUAL = /^(?:docker|br-|veth|virbr|vmnet|vboxnet|cni|flannel|cali|lxc|lxd)/;

type Interfaces = ReturnType<typeof networkInterfaces>;

/** IPv4 addresses under which others reach this machine. */
export function lanAddresses(interfaces: Interfaces = networkInterfaces()): string[] {
  return Object.entries(interfaces)
    .filter(([name]) => !VIRTUAL.test(name))
    .flatMap(([, addresses]) => addresses ?? [])
    .filter(({ family, internal }) => family === "IPv4" && !internal)
    .map(({ address }) => address)
    .filter((address) => !address.startsWith("169.254."))
    .slice(0, MAX_ADDRESSES);
}

/**
 * What is printed on stdout, once it listens. Makes the key `lan` if there is none that is good, which is shown here and
 * never again.
 *
 * @param endpoint what it listens on, for its scheme and port
 * @param ownKey where the user has set a key, which is the one then: `TUG_API_KEY`, `--api-key`; null: nowhere
 */
export async function shareOnLan(
  client: Client,
  { endpoint, ownKey, signal }: CallOptions & { endpoint: string; ownKey: string | null },
): Promise<string> {
  const { protocol, port } = new URL(endpoint);
  const urls = lanAddresses().map((address) => `${protocol}//${address}${port && `:${port}`}`);
  const where = urls.length === 0 ? ["(no network)"] : urls;
  const keyLine = ownKey === null ? await lanKey(client, { signal }) : `the one of ${ownKey}`;
  return `${where.map((url) => `URL: ${url}\n`).join("")}Key: ${keyLine}\n`;
}

// --- internal ---

async function lanKey(client: Client, options: CallOptions): Promise<string> {
  const found = (await listKeys(client, options)).find(({ name }) => name === KEY_NAME);
  if (found?.expired === false) {
    return `${found.prefix}… (\`${KEY_NAME}\`, made before; \`tug key create NAME\` makes another one)`;
  }
  if (found !== undefined) await revokeKeys(client, { names: [KEY_NAME] }, options);
  const { key } = await createKey(client, { name: KEY_NAME }, options);
  return `${key} (\`${KEY_NAME}\`; it is not shown again)`;
}
