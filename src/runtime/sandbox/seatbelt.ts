/**
 * Apple's sandbox, by way of `sandbox-exec`. Pure. Never run by this project's tests, which have no Mac.
 *
 * It allows by default and denies what matters: what Metal and the dynamic linker need is not documented, and engines
 * fail in odd ways without it. The last rule that matches decides. Paths are compared after links are resolved, so the
 * view must name real paths (`/private/tmp`, not `/tmp`).
 *
 * @see https://github.com/docker/model-runner/blob/main/pkg/sandbox/sandbox_darwin.go for a profile in use for the
 *   same engine
 */
import { dirname, isAbsolute } from "node:path";

import { AppError } from "../../errors.ts";
import { hiddenVariables } from "./environment.ts";
import { withLimits } from "./limits.ts";
import type { Sandbox, SandboxView } from "./sandbox.ts";

export interface SeatbeltOptions {
  /** Path of `sandbox-exec`. */
  readonly program: string;
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** Where people's own things are, and other users' sockets and temporary files. */
const HIDDEN =
  "/Applications /Library /Users /Volumes /Network /opt /private/etc /private/tmp " +
  "/private/var/folders /private/var/root /private/var/run";
/** Libraries and frameworks; Metal keeps its compiled shaders for a user below `/private/var/folders`. */
const SYSTEM = "/usr /System /bin /sbin /Library/Apple /private/var/db/dyld";
/** Of the network, what an engine with a port needs. */
const LOOPBACK = '(allow network-bind network-inbound (local ip "localhost:*"))';
const SHADER_CACHE = '(regex #"^/private/var/folders/[^/]+/[^/]+/C/")';

export function createSeatbelt({ program, env }: SeatbeltOptions): Sandbox {
  return {
    name: "seatbelt",
    wrap: (command, view) => {
      const hidden = hiddenVariables(env, view.variables).flatMap((name) => ["-u", name]);
      const confined = [program, "-p", seatbeltProfile(view), ...command];
      return ["/usr/bin/env", ...hidden, ...withLimits(confined)];
    },
  };
}

/** @throws internal for a path that is not absolute or has control characters, which the language cannot quote */
export function seatbeltProfile(view: SandboxView): string {
  const readOnly = view.readOnly.map(throughPrivate);
  const writable = view.writable.map(throughPrivate);
  const places = [...readOnly, ...writable];
  if (places.includes("/")) throw unquotable("/");
  const parents = [...new Set(places.flatMap(ancestors))];
  const rules = [
    "(version 1)",
    "(allow default)",
    view.reachesOthers === true ? "" : "(deny network*)",
    rule("allow network-bind network-inbound", writable.map(subpath)),
    view.sharesNetwork === true ? LOOPBACK : "",
    // Camera and microphone, firmware variables, privileges, jobs that launchd would start outside.
    "(deny device*)",
    "(deny nvram*)",
    "(deny system*)",
    "(deny job-creation)",
    "(deny appleevent-send)",
    "(deny user-preference*)",
    "(deny dynamic-code-generation)",
    // Through these `open` has programs started outside.
    rule("deny mach-lookup", [
      '(global-name "com.apple.launchservicesd")',
      '(global-name "com.apple.coreservices.launchservicesd")',
      '(global-name "com.apple.pasteboard.1")',
    ]),
    "(deny file-map-executable)",
    "(deny file-write*)",
    rule("deny file-read*", HIDDEN.split(" ").map(subpath)),
    rule("allow file-read* file-map-executable", [...SYSTEM.split(" "), ...readOnly].map(subpath)),
    rule("allow file-read-metadata", parents.map(literal)),
    rule("allow file-read* file-write*", [...writable.map(subpath), SHADER_CACHE]),
    rule("allow file-read* file-write*", ["/dev/null", "/dev/zero", ...view.devices].map(literal)),
  ];
  return rules.filter((it) => it !== "").join("\n");
}

// --- internal ---

/** The links that every macOS has. */
function throughPrivate(path: string): string {
  return /^\/(?:tmp|var|etc)(?:\/|$)/.test(path) ? `/private${path}` : path;
}

function rule(head: string, filters: readonly string[]): string {
  return filters.length === 0 ? "" : `(${head} ${filters.join(" ")})`;
}

function subpath(path: string): string {
  return `(subpath ${quote(path)})`;
}

function literal(path: string): string {
  return `(literal ${quote(path)})`;
}

/** For `realpath`, which looks at every directory on the way. */
function ancestors(path: string): readonly string[] {
  const parent = dirname(path);
  return parent === path ? [] : [parent, ...ancestors(parent)];
}

/** @throws internal for what is no path, and for control characters, for which the language has no quotes */
function quote(path: string): string {
  if (isAbsolute(path) && !/\p{Cc}/u.test(path))
    return `"${path.replaceAll(/["\\]/g, String.raw`\$&`)}"`;
  throw unquotable(path);
}

function unquotable(path: string): AppError {
  const shown = JSON.stringify(path.slice(0, 200));
  return new AppError("internal", `cannot show ${shown} to an engine: not a path for that`);
}
