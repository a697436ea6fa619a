/** What `tug serve` says once it listens. */
import type { RunnerInfo } from "../api/engines.ts";
import { log } from "../log.ts";

/** On stderr. @param options.isLog stderr is a log, which has the endpoint already and takes nothing else */
export function announce(info: RunnerInfo, { isLog }: { readonly isLog: boolean }): void {
  const { endpoint, endpoint_problem: problem, socket, authority } = info;
  if (isLog) {
    if (problem !== null) log.warn(`runner: port not listened on reason=${problem}`);
    return;
  }
  const port = endpoint ?? `no port (${problem ?? "unknown reason"})`;
  process.stderr.write(`Listening on ${port} and ${socket ?? "no socket"}\n`);
  if (endpoint !== null && typeof authority === "string") {
    process.stderr.write(describeTrust(endpoint, authority));
  }
}

// --- internal ---

/** How clients come to trust a certificate that was made here. @param authority path of its file */
function describeTrust(endpoint: string, authority: string): string {
  const file = /^[\w./-]+$/.test(authority) ? authority : `"${authority}"`;
  const url = endpoint.replace(/\/\/(?:127\.0\.0\.1|0\.0\.0\.0|\[::1?\]):/, "//localhost:");
  return `Certificate authority: ${authority}
Clients have to trust it, those on other machines with a copy of the file:
  curl --cacert ${file} ${url}/v1/models
  NODE_EXTRA_CA_CERTS=${file}    Node, Bun
  SSL_CERT_FILE=${file}    Python, OpenSSL
  tug --host ${url} --ca-bundle ${file} list
`;
}
