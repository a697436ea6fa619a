/** Reading and writing the texts that apt speaks. Pure. */

/** A repository to install from. */
export interface AptRepository {
  readonly uri: string;
  readonly suite: string;
  readonly component: string;
  /** The file of the host that configures it. */
  readonly sourceFile: string;
}

/** A package as `apt-get --print-uris download` lists it. */
export interface AptPackage {
  readonly name: string;
  /** Without epoch. */
  readonly version: string;
  readonly fileName: string;
  readonly bytes: number;
}

interface Target extends AptRepository {
  readonly origin: string;
  readonly label: string;
}

/**
 * @param targets lines of `origin|label|codename|repository|entry|component|release`
 * @param madison what `apt-cache madison PACKAGE` printed; empty where the host's suites lack the package
 * @param fallbackSuite taken from Debian's own archive then
 */
export function parseRepositories(
  targets: string,
  madison: string,
  fallbackSuite: string,
): AptRepository | undefined {
  const configured = targets.split("\n").flatMap(parseTarget);
  for (const line of madison.split("\n")) {
    const place = /\|\s*(\S+) (\S+)\/(\S+) \S+ Packages$/.exec(line.trim());
    const found = configured.find(
      ({ uri, suite }) => trimSlash(uri) === trimSlash(place?.[1] ?? "") && suite === place?.[2],
    );
    if (found !== undefined) return repositoryOf(found, found.suite);
  }
  const debian = configured.find(isDebian) ?? configured.find(looksLikeDebian);
  return debian === undefined ? undefined : repositoryOf(debian, fallbackSuite);
}

/**
 * The `Signed-By` of the entry for `uri` in a source file, as the lines to put after `Signed-By:`.
 *
 * @param text a deb822 `.sources` file or a one-line-style `.list` file
 * @see sources.list(5)
 */
export function signedBy(text: string, uri: string): string | undefined {
  for (const stanza of text.split(/\n[ \t]*\n/)) {
    if (!hasUri(fieldOf(stanza, "URIs"), uri)) continue;
    const value = fieldOf(stanza, "Signed-By");
    if (value !== undefined) return value;
  }
  for (const line of text.split("\n")) {
    const entry = /^\s*deb\s+\[([^\]]*)\]\s+(\S+)/.exec(line);
    if (!hasUri(entry?.[2], uri)) continue;
    const value = /(?:^|\s)signed-by=(\S+)/i.exec(entry?.[1] ?? "")?.[1];
    if (value !== undefined) return value.replaceAll(",", " ");
  }
  return undefined;
}

/** One deb822 stanza. `Targets: Packages` leaves out translations and software-centre data, two thirds of the bytes. */
export function aptSource(repository: AptRepository, keyring: string | undefined): string {
  const lines = [
    "Types: deb",
    `URIs: ${repository.uri}`,
    `Suites: ${repository.suite}`,
    `Components: ${repository.component}`,
    "Targets: Packages",
  ];
  if (keyring !== undefined) lines.push(`Signed-By: ${keyring}`);
  return `${lines.join("\n")}\n`;
}

/**
 * Configuration that keeps apt inside `root` and free of the host's hooks, pins and default release, none of which
 * are meant for a private tree.
 *
 * @see apt.conf(5)
 */
export function aptConfiguration(root: string): string {
  // apt.conf has no way to quote these.
  if (/["\n]/.test(root)) throw new Error("apt cannot use a directory with a quotation mark");
  return `
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear APT::Default-Release;
#clear DPkg::Pre-Install-Pkgs;
Dir::State "${root}/state";
Dir::State::status "${root}/status";
Dir::Cache "${root}/cache";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "${root}/sources.d";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Update::Error-Mode "any";
APT::Get::List-Cleanup "true";
Acquire::Retries "1";
Acquire::Languages "none";
Acquire::http::Timeout "10";
Acquire::https::Timeout "10";
`.trimStart();
}

/** Lines of `'<uri>' <file> <bytes> <hash>`. */
export function parseUris(text: string): readonly AptPackage[] {
  return text.split("\n").flatMap((line) => {
    const found = /^'[^']*' (([^_\s]+)_([^_\s]+)_[^_\s]+\.deb) (\d+) /.exec(line);
    if (found === null) return [];
    const [, fileName = "", name = "", version = "", bytes = ""] = found;
    const plain = version.replaceAll("%3a", ":").replace(/^\d+:/, "");
    return [{ fileName, name, version: plain, bytes: Number(bytes) }];
  });
}

// --- internal ---

function parseTarget(line: string): Target[] {
  const [origin, label, , uri, entry, component, suite] = line.split("|");
  if (origin === undefined || label === undefined || uri === undefined) return [];
  if (!entry || !component || !suite) return [];
  // `file:1`; the number counts lines or stanzas.
  const sourceFile = entry.replace(/:\d+$/, "");
  return [{ origin, label, uri, component, suite, sourceFile }];
}

function repositoryOf(target: Target, suite: string): AptRepository {
  const { uri, sourceFile } = target;
  return { uri, suite, component: suite === target.suite ? target.component : "main", sourceFile };
}

/** The security archive has the same origin and another label; it holds no other suites. */
function isDebian({ origin, label }: Target): boolean {
  return origin === "Debian" && label === "Debian";
}

/** Before the first `apt-get update` (container images ship so) origin and label are not known; signatures still count. */
function looksLikeDebian({ origin, uri, suite }: Target): boolean {
  const unknown = origin === "" || origin.startsWith("$(");
  return unknown && /\/debian\/?$/.test(uri) && !suite.includes("security");
}

/** A field of a deb822 stanza with its continuation lines, as they were written. */
function fieldOf(stanza: string, name: string): string | undefined {
  const lines = stanza.split("\n").filter((line) => !line.startsWith("#"));
  const start = lines.findIndex((line) => line.toLowerCase().startsWith(`${name.toLowerCase()}:`));
  if (start === -1) return undefined;
  let end = start + 1;
  while (/^[ \t]/.test(lines[end] ?? "")) end += 1;
  const first = (lines[start] ?? "").slice(name.length + 1).trim();
  return [first, ...lines.slice(start + 1, end)].join("\n");
}

function hasUri(listed: string | undefined, uri: string): boolean {
  const words = (listed ?? "").split(/\s+/).map(trimSlash);
  return words.includes(trimSlash(uri));
}

function trimSlash(text: string): string {
  return text.replace(/\/+$/, "");
}
