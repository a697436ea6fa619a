import { describe, expect, test } from "bun:test";

import { createSeatbelt, seatbeltProfile } from "../../../src/runtime/sandbox/seatbelt.ts";

const VIEW = { readOnly: ["/Users/u/m.gguf"], writable: ["/Users/u/run/w1"], devices: [] };

// What macOS makes of it, only a Mac can tell.
describe("the profile for sandbox-exec", () => {
  test("denies network, home and writing, and then allows what the view names", () => {
    const lines = seatbeltProfile(VIEW).split("\n");
    const at = (start: string): number => lines.findIndex((line) => line.startsWith(start));

    expect(lines.slice(0, 3)).toEqual(["(version 1)", "(allow default)", "(deny network*)"]);
    expect(lines[at("(allow network-bind")]).toBe(
      '(allow network-bind network-inbound (subpath "/Users/u/run/w1"))',
    );
    expect(lines[at("(deny file-read*")]).toContain('(subpath "/Users")');
    // The last rule that matches decides.
    expect(at("(deny file-read*")).toBeLessThan(at("(allow file-read* file-map-executable"));
    expect(lines[at("(allow file-read* file-map-executable")]).toContain('"/Users/u/m.gguf"');
    expect(at("(deny file-write*)")).toBeLessThan(at("(allow file-read* file-write*"));
    expect(lines[at("(allow file-read-metadata")]).toContain('(literal "/Users/u/run")');
  });

  test("allows no socket where there is no place for one", () => {
    expect(seatbeltProfile({ ...VIEW, writable: [] })).not.toContain("allow network");
  });

  test("allows a port of this machine alone where the engine listens on one", () => {
    const lines = seatbeltProfile({ ...VIEW, sharesNetwork: true }).split("\n");

    expect(lines.filter((line) => line.includes("allow network"))).toEqual([
      '(allow network-bind network-inbound (subpath "/Users/u/run/w1"))',
      '(allow network-bind network-inbound (local ip "localhost:*"))',
    ]);
  });

  test("denies nothing of the network where the engine computes on other machines", () => {
    expect(seatbeltProfile(VIEW)).toContain("(deny network*)");
    expect(seatbeltProfile({ ...VIEW, reachesOthers: true })).not.toContain("(deny network*)");
  });

  test("names temporary directories by their real paths", () => {
    const profile = seatbeltProfile({ readOnly: ["/varnish"], writable: ["/tmp/w"], devices: [] });

    expect(profile).toContain('(subpath "/private/tmp/w")');
    expect(profile).not.toContain('"/tmp/w"');
    expect(profile).toContain('(subpath "/varnish")');
  });

  test("quotes paths, so that none ends its rule", () => {
    const profile = seatbeltProfile({ ...VIEW, readOnly: [String.raw`/a")(allow default)(x "\b`] });

    expect(profile).toContain(String.raw`(subpath "/a\")(allow default)(x \"\\b")`);
  });

  test.each(["relative", "", "/", "/a\nb", "/a\0b", "/a\u001b"])("refuses %j", (path) => {
    expect(() => seatbeltProfile({ ...VIEW, readOnly: [path] })).toThrow(/^cannot show /);
  });

  test("is passed as one word, with the variables removed before", () => {
    const env = { PATH: "/bin", HOME: "/Users/u", LANG: "C", OPENAI_API_KEY: "k", GGML_TOKEN: "t" };

    const argv = createSeatbelt({ program: "/usr/bin/sandbox-exec", env }).wrap(["/e", "-m"], VIEW);

    expect(argv.slice(0, 7)).toEqual(
      "/usr/bin/env -u HOME -u OPENAI_API_KEY -u GGML_TOKEN".split(" "),
    );
    expect(argv.slice(-5)).toEqual([
      "/usr/bin/sandbox-exec",
      "-p",
      seatbeltProfile(VIEW),
      "/e",
      "-m",
    ]);
  });
});
