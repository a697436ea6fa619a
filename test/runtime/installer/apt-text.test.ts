import { describe, expect, test } from "bun:test";

import {
  aptConfiguration,
  aptSource,
  parseRepositories,
  parseUris,
  signedBy,
} from "../../../src/runtime/installer/apt-text.ts";

const ENTRY = "/etc/apt/sources.list.d/debian.sources:1";
const BOOKWORM = `Debian|Debian-Security|bookworm-security|http://mirror.test/debian-security/|${ENTRY}|main|bookworm-security
Debian|Debian|bookworm|http://mirror.test/debian/|${ENTRY}|main|bookworm
`;

describe("parseRepositories", () => {
  test("apt: a suite that lacks the package falls back to the named one, never in the security archive", () => {
    expect(parseRepositories(BOOKWORM, "", "sid")).toEqual({
      uri: "http://mirror.test/debian/",
      suite: "sid",
      component: "main",
      sourceFile: "/etc/apt/sources.list.d/debian.sources",
    });
  });

  test("apt: a configured suite that holds the package is used as it is", () => {
    const targets = `Ubuntu|Ubuntu|zebra|http://mirror.test/ubuntu/|/etc/apt/x.list:3|universe|zebra\n`;
    const madison =
      "llama.cpp-tools | 1:0.7.0-2 | http://mirror.test/ubuntu zebra/universe amd64 Packages\n";

    expect(parseRepositories(targets, madison, "sid")).toEqual({
      uri: "http://mirror.test/ubuntu/",
      suite: "zebra",
      component: "universe",
      sourceFile: "/etc/apt/x.list",
    });
  });

  test("apt: before the first update the Debian archive is known by its path", () => {
    const targets = `||$(CODENAME)|http://mirror.test/debian-security/|${ENTRY}|main|bookworm-security
|||http://mirror.test/debian|${ENTRY}|main|bookworm
`;

    expect(parseRepositories(targets, "", "sid")?.uri).toBe("http://mirror.test/debian");
  });

  test("apt: without a Debian repository there is none", () => {
    const targets = "Ubuntu|Ubuntu|noble|http://mirror.test/ubuntu/|/etc/x:1|main|noble\n";

    expect(parseRepositories(targets, "", "sid")).toBeUndefined();
    expect(parseRepositories("", "", "sid")).toBeUndefined();
  });
});

describe("signedBy", () => {
  const uri = "http://mirror.test/debian/";

  test("apt: the keyring of the stanza that has the address is taken", () => {
    const text = `Types: deb
URIs: http://other.test/x
Signed-By: /wrong.gpg

# a comment
Types: deb
uris: http://mirror.test/debian
Suites: bookworm
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
`;

    expect(signedBy(text, uri)).toBe("/usr/share/keyrings/debian-archive-keyring.gpg");
  });

  test("apt: a key written into the stanza is kept with its lines", () => {
    const text = `URIs: ${uri}
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBF
Suites: x`;

    expect(signedBy(text, uri)).toBe("\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQINBF");
  });

  test("apt: the option of a one-line entry is read", () => {
    const text = `deb [arch=amd64 signed-by=/a.gpg,/b.gpg] ${uri} bookworm main\n`;

    expect(signedBy(text, uri)).toBe("/a.gpg /b.gpg");
  });

  test("apt: no entry, no keyring", () => {
    expect(signedBy("deb http://mirror.test/debian bookworm main", uri)).toBeUndefined();
    expect(signedBy("", uri)).toBeUndefined();
  });
});

describe("apt's files", () => {
  const repository = {
    uri: "http://mirror.test/debian/",
    suite: "sid",
    component: "main",
    sourceFile: "/x",
  };

  test("apt: the source names one repository and its keyring", () => {
    expect(aptSource(repository, "/k.gpg")).toBe(
      "Types: deb\nURIs: http://mirror.test/debian/\nSuites: sid\nComponents: main\nTargets: Packages\nSigned-By: /k.gpg\n",
    );
    expect(aptSource(repository, undefined)).not.toContain("Signed-By");
  });

  test("apt: everything it writes is kept below one directory", () => {
    const text = aptConfiguration("/home/me/with space");

    expect(text).toContain('Dir::State "/home/me/with space/state";');
    expect(text).toContain("#clear APT::Update::Post-Invoke;");
    expect(() => aptConfiguration('/a"b')).toThrow(/quotation mark/);
  });

  test("apt: packages are read with sizes and versions without epoch", () => {
    const text = `'http://mirror.test/l.deb' llama.cpp-tools_1%3a0.7.0+dfsg-2_amd64.deb 1642656 SHA256:3007
'http://mirror.test/c.deb' libc6_2.43-7_amd64.deb 1866392 SHA256:5c71
W: something else
`;

    expect(parseUris(text)).toEqual([
      {
        name: "llama.cpp-tools",
        version: "0.7.0+dfsg-2",
        fileName: "llama.cpp-tools_1%3a0.7.0+dfsg-2_amd64.deb",
        bytes: 1_642_656,
      },
      {
        name: "libc6",
        version: "2.43-7",
        fileName: "libc6_2.43-7_amd64.deb",
        bytes: 1_866_392,
      },
    ]);
  });
});
