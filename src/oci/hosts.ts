/** Where registries are: from the name in a reference to an address. */
import { reasonOf } from "../http/connection-error.ts";
import { discard } from "../http/body.ts";
import { isLoopback, withoutPort } from "../http/host.ts";
import type { Http } from "../http/http.ts";
import { orAbort } from "./shared.ts";

/** A server that speaks no TLS refuses it at once; one that says nothing at all is not waited for longer. */
const PROBE_MS = 3_000;

export interface HostOptions {
  readonly http: Http;
  /** Whether plain http, and any certificate, will do. */
  readonly isInsecure: (host: string) => boolean;
}

export interface Hosts {
  /**
   * Base URL, such as `https://registry-1.docker.io`, without a slash at the end.
   *
   * A registry on this machine is spoken to over http, until it turns out that it wants TLS. One in `.local`, as with Docker
   * Model Runner, and one that may be insecure is asked once whether it speaks TLS, and else spoken to over http. No other is.
   *
   * @throws offline, registry_unavailable, the signal's reason
   */
  baseUrl(host: string, options: { readonly signal: AbortSignal }): Promise<string>;
  /** After plain http came to nothing: whether TLS is spoken there, which is looked at once. */
  isTlsAfterAll(host: string, options: { readonly signal: AbortSignal }): Promise<boolean>;
  /** After a failed connection: what was found out may have changed. */
  forget(host: string): void;
}

export function createHosts({ http, isInsecure }: HostOptions): Hosts {
  const found = new Map<string, Promise<boolean>>();
  const probe = async (host: string): Promise<boolean> => {
    try {
      return await speaksTls(http, host);
    } catch (error) {
      found.delete(host);
      throw error;
    }
  };
  const isTls = (host: string, signal: AbortSignal): Promise<boolean> => {
    const probing = found.get(host) ?? probe(host);
    found.set(host, probing);
    return orAbort(probing, signal);
  };
  return {
    async baseUrl(name, { signal }) {
      const host = apiHost(name);
      if (isLoopback(host)) {
        const known = found.get(host);
        const isKnownTls = known !== undefined && (await orAbort(known, signal));
        return isKnownTls ? `https://${host}` : `http://${host}`;
      }
      if (!isInsecure(host) && !isLocal(host)) return `https://${host}`;
      return (await isTls(host, signal)) ? `https://${host}` : `http://${host}`;
    },
    async isTlsAfterAll(name, { signal }) {
      // Of several exchanges that come to nothing at once, each goes on with what the first finds out.
      return isTls(apiHost(name), signal);
    },
    forget: (name) => void found.delete(apiHost(name)),
  };
}

// --- internal ---

function apiHost(host: string): string {
  return host === "docker.io" ? "registry-1.docker.io" : host;
}

/** Anybody on the network can answer for such a name: what can be encrypted there is. */
function isLocal(host: string): boolean {
  return withoutPort(host).endsWith(".local");
}

/** @throws what makes it impossible to know, such as a refused connection */
async function speaksTls(http: Http, host: string): Promise<boolean> {
  try {
    const response = await http.send(`https://${host}/v2/`, {
      signal: new AbortController().signal,
      headersTimeoutMs: PROBE_MS,
      redirect: "manual",
    });
    await discard(response);
    return true;
  } catch (error) {
    const reason = reasonOf(error) ?? "";
    // A certificate that is not accepted is TLS all the same: the next exchange says what is wrong with it.
    if (reason === "certificate") return true;
    // Without a port in the name plain http is at another one.
    const hasPort = withoutPort(host) !== host.toLowerCase();
    if (NOT_TLS.has(reason) || (reason === "refused" && !hasPort)) return false;
    throw error;
  }
}

const NOT_TLS: ReadonlySet<string> = new Set(["tls", "closed", "timeout"]);
