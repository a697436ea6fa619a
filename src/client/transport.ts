/** How a request reaches the API: a function shaped like `fetch` that takes a path. */
import { AppError, errnoOf } from "../errors.ts";

export interface Transport {
  readonly kind: "remote" | "socket" | "in-process";
  /** For messages: a URL, a path, or `this process`. */
  readonly target: string;
  /** Rejects with `runner_unreachable` if nothing answers, with an AbortError if the signal fired. */
  fetch(path: string, init?: RequestInit): Promise<Response>;
}

/** Whom an `https` runner is believed. @returns PEM text of certificate authorities; undefined: the system's */
export type Authorities = () => Promise<string | undefined>;

/**
 * Over TCP to a runner elsewhere, or here if the address is loopback. Proxies never see loopback requests. Certificates
 * are always checked.
 *
 * @param authorities asked at the first request, and only for `https`
 */
export function remoteTransport(
  baseUrl: string,
  apiKey = "",
  authorities?: Authorities,
): Transport {
  const isLoopback = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(new URL(baseUrl).hostname);
  const direct = isLoopback ? { proxy: false as never } : {};
  const isSecure = baseUrl.startsWith("https:");
  let trusted: Promise<object> | undefined;
  return {
    kind: "remote",
    target: baseUrl,
    fetch: async (path, init) => {
      if (isSecure) trusted ??= trustOptions(authorities);
      const trust = await trusted;
      const headers = new Headers(init?.headers);
      if (apiKey !== "") headers.set("authorization", `Bearer ${apiKey}`);
      const request = { ...init, headers, ...direct, ...trust, ...PATIENT };
      return send({ target: baseUrl, hint: isLoopback ? LOCAL_HINT : REMOTE_HINT }, () =>
        fetch(`${baseUrl}${path}`, request),
      );
    },
  };
}

export function socketTransport(socket: string): Transport {
  return {
    kind: "socket",
    target: socket,
    fetch: (path, init) =>
      send({ target: socket, hint: LOCAL_HINT }, () =>
        fetch(`http://localhost${path}`, { ...init, unix: socket, ...PATIENT }),
      ),
  };
}

/** Straight into an app of this process, which trusts it: no socket, no runner. */
export function inProcessTransport(app: {
  fetch(request: Request): Response | Promise<Response>;
}): Transport {
  return {
    kind: "in-process",
    target: "this process",
    fetch: async (path, init) => app.fetch(new Request(`http://localhost${path}`, init)),
  };
}

// --- internal ---

// A model may think for longer than fetch's own idle bound of five minutes; whoever waits has a signal.
// Without keep-alive no request meets a connection that the other side has just closed.
const PATIENT = { timeout: false, keepalive: false } as RequestInit;

const LOCAL_HINT =
  "`tug status` says whether a runner runs on this machine; `tug start-runner` starts it.";
const REMOTE_HINT =
  "Check the address (`--host`, TUG_HOST; `https://` where it speaks TLS), and that a runner listens there.";
const TRUST_HINT =
  "Copy the certificate authority of that runner (`tug status` names the file there), and give it with `--ca-bundle FILE` or TUG_TLS_CA.";

const TLS_HINT = "If the runner speaks TLS, write its address with `https://`.";

async function trustOptions(authorities: Authorities | undefined): Promise<object> {
  const ca = await authorities?.();
  return ca === undefined ? {} : { tls: { ca } };
}

/** Where the reason says more than that nobody answers. */
function hintFor(reason: string, target: string): string | undefined {
  if (/CERT|^UNABLE_TO_|^HOSTNAME_MISMATCH/.test(reason)) return TRUST_HINT;
  if (reason === "ECONNRESET" && target.startsWith("http:")) return TLS_HINT;
  return undefined;
}

async function send(
  { target, hint }: { readonly target: string; readonly hint: string },
  attempt: () => Promise<Response>,
): Promise<Response> {
  try {
    return await attempt();
  } catch (cause) {
    if ((cause as Error).name === "AbortError") throw cause;
    // Bun adds advice of its own ("Was there a typo in the url or port?").
    const reason = errnoOf(cause) ?? (cause as Error).message;
    throw new AppError("runner_unreachable", `cannot reach the runner at ${target}: ${reason}`, {
      hint: hintFor(reason, target) ?? hint,
      cause,
    });
  }
}
