/** How lists of browser origins and of host names are read from settings. Pure. @throws usage, each of them */
import { isIPv4 } from "node:net";
import { AppError } from "./errors.ts";

const ORIGIN_HINT =
  "Write origins as `https://app.example.com`, `https://*.example.com`, `http://nas.lan:*`, `app://name`, or `*` for all.";
const HOST_HINT = "Write names as `ai.example.com` or `*.example.com`, without scheme and port.";
/** What a browser leaves out of an origin. */
const DEFAULT_PORTS: Readonly<Record<string, string>> = { "http:": ":80", "https:": ":443" };

/**
 * Separated by commas or spaces.
 *
 * @returns as browsers write them, in lower case: `scheme://host[:port]`, where the host may be `*` or begin with `*.`,
 *   and the port may be `*`; `scheme://*` for a scheme of apps named alone; `null`; `*`
 */
export function parseOrigins(text: string): readonly string[] {
  return words(text).map((word) => {
    const origin = toOrigin(word.toLowerCase());
    if (origin !== undefined) return origin;
    throw new AppError("usage", `\`${word.slice(0, 200)}\` is not an origin`, {
      hint: ORIGIN_HINT,
    });
  });
}

/** Separated by commas or spaces. @returns lower case: a name, an address (IPv6 in brackets), `*.name`, or `*` */
export function parseHosts(text: string): readonly string[] {
  return words(text).map((word) => {
    const host = word === "*" ? word : toHost(word.toLowerCase());
    if (host !== undefined) return host;
    throw new AppError("usage", `\`${word.slice(0, 200)}\` is not the name of a host`, {
      hint: HOST_HINT,
    });
  });
}

/**
 * Separated by commas or spaces.
 *
 * @returns `host:port`, each once. The protocol behind them knows IPv4 only
 */
export function parseRpcServers(text: string): readonly string[] {
  const servers = [...new Set(words(text).map(toRpcServer))];
  if (servers.length <= MAX_RPC_SERVERS) return servers;
  throw new AppError("usage", `there are more than ${MAX_RPC_SERVERS} servers`, { hint: RPC_HINT });
}

/** Separated by commas or spaces. @returns lower case: `registry/path/`, each with its slash at the end */
export function parseImagePrefixes(text: string): readonly string[] {
  return words(text).map((word) => {
    const [registry = "", ...path] = word.toLowerCase().replace(/\/+$/, "").split("/");
    // What is no registry's name would be taken for one on Docker Hub, which has everybody's images.
    const isRegistry = registry === "localhost" || /[.:]/.test(registry);
    const isWhole = path.every((part) => /^[a-z0-9]+(?:[._-]+[a-z0-9]+)*$/.test(part));
    if (isRegistry && isWhole && path.length > 0 && URL.canParse(`http://${registry}`)) {
      return `${[registry, ...path].join("/")}/`;
    }
    throw new AppError("usage", `\`${word.slice(0, 200)}\` is not the beginning of images' names`, {
      hint: "Write a registry and what follows it, such as `registry.example.com/nim/`.",
    });
  });
}

// --- internal ---

/** @see llama.cpp ggml/include/ggml-rpc.h: GGML_RPC_MAX_SERVERS */
const MAX_RPC_SERVERS = 16;
const RPC_HINT = "Write servers as `192.0.2.7:50052`, an IPv4 address or a name, and a port.";

function toRpcServer(word: string): string {
  const [, host = "", port] = /^([a-z0-9][a-z0-9._-]{0,252}):(\d{1,5})$/i.exec(word) ?? [];
  // What is made of numbers alone must be an address: `1.2.3` would be one to some, a name to others.
  const isHost = !/^[\d.]+$/.test(host) || isIPv4(host);
  const number = Number(port);
  if (isHost && number >= 1 && number <= 65_535) return `${host.toLowerCase()}:${number}`;
  throw new AppError("usage", `\`${word.slice(0, 200)}\` is not the address of an RPC server`, {
    hint: RPC_HINT,
  });
}

function words(text: string): string[] {
  return text.split(/[\s,]+/).filter((word) => word !== "");
}

function toOrigin(word: string): string | undefined {
  if (word === "*" || word === "null") return word;
  const [, scheme, rest] = /^([a-z][a-z0-9+.-]*:)\/\/([^/?#@]*)\/?$/.exec(word) ?? [];
  if (scheme === undefined || rest === undefined) return undefined;
  if (scheme !== "http:" && scheme !== "https:") return toAppOrigin(scheme, rest);
  const authority = toAuthority(rest, DEFAULT_PORTS[scheme]);
  return authority === undefined ? undefined : `${scheme}//${authority}`;
}

/** @param defaultPort which browsers leave out */
function toAuthority(text: string, defaultPort: string | undefined): string | undefined {
  const [, name, port = ""] = /^(\[[0-9a-f:.]+\]|[^:[\]]+)(:\*|:\d{1,5})?$/.exec(text) ?? [];
  if (name === undefined || Number(port.replace(/^:\*?/, "")) > 65_535) return undefined;
  const host = name === "*" ? name : toHost(name);
  return host === undefined ? undefined : `${host}${port === defaultPort ? "" : port}`;
}

/** Such as `tauri://localhost`, `chrome-extension://id`, `vscode-webview://*`; their hosts are no names of the DNS. */
function toAppOrigin(scheme: string, host: string): string | undefined {
  if (host === "" || host === "*") return `${scheme}//*`;
  return /^[a-z0-9._-]+(:\d{1,5})?$/.test(host) ? `${scheme}//${host}` : undefined;
}

/** An international name becomes what travels: `bücher.example` is `xn--bcher-kva.example`. */
function toHost(word: string): string | undefined {
  const wildcard = word.startsWith("*.") ? "*." : "";
  const name = word.slice(wildcard.length);
  if (/[*:/?#@\s\\%]/.test(name) && !/^\[[0-9a-f:.]+\]$/.test(name)) return undefined;
  const hostname = URL.parse(`http://${name}`)?.hostname ?? "";
  const isHost = /^(\[[0-9a-f:.]+\]|[a-z0-9_-]+(\.[a-z0-9_-]+)*)$/.test(hostname);
  return isHost ? `${wildcard}${hostname}` : undefined;
}
