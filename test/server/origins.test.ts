import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { parseHosts, parseOrigins } from "../../src/config-names.ts";
import { createOriginJudge } from "../../src/server/origins.ts";

describe("parseOrigins", () => {
  test.each([
    ["https://app.example.com/", ["https://app.example.com"]],
    ["https://a.example, https://b.example", ["https://a.example", "https://b.example"]],
    ["https://a.example https://b.example\n", ["https://a.example", "https://b.example"]],
    ["HTTPS://App.Example.COM", ["https://app.example.com"]],
    ["https://a.example:443 http://b.example:80", ["https://a.example", "http://b.example"]],
    ["http://a.example:443", ["http://a.example:443"]],
    ["https://*.example.com http://nas.lan:*", ["https://*.example.com", "http://nas.lan:*"]],
    ["https://bücher.example", ["https://xn--bcher-kva.example"]],
    ["http://[FD00::1]:3000", ["http://[fd00::1]:3000"]],
    ["app://", ["app://*"]],
    ["tauri://localhost vscode-webview://*", ["tauri://localhost", "vscode-webview://*"]],
    ["chrome-extension://abcdefghijklmnop", ["chrome-extension://abcdefghijklmnop"]],
    ["*", ["*"]],
    ["null", ["null"]],
    [" , ", []],
  ])("parseOrigins: %p is %p", (text, origins) => {
    expect(parseOrigins(text)).toEqual(origins);
  });

  test.each([
    "example.com",
    "localhost:3000",
    "https://",
    "https://a.example/path",
    "https://a.example?x",
    "https://me@a.example",
    "https://a.example:99999",
    "https://a.example:x",
    "https://a.*.example",
    "https://*example.com",
    "https://*.",
    "http://a b",
    "https://[::1",
    "app://name/path",
    "javascript:alert(1)",
    "https://a.example;rm",
    "https://'$(id)'",
  ])("parseOrigins: %p is refused, and named", (text) => {
    expect(() => parseOrigins(text)).toThrow("is not an origin");
  });

  test("parseOrigins: what is accepted is accepted again, as it is", () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        const parsed = parseOrAbsent(text);
        if (parsed !== undefined) expect(parseOrigins(parsed.join(" "))).toEqual(parsed);
      }),
    );
  });
});

function parseOrAbsent(text: string): readonly string[] | undefined {
  try {
    return parseOrigins(text);
  } catch {
    return undefined;
  }
}

describe("parseHosts", () => {
  test("parseHosts: names, domains and addresses", () => {
    expect(parseHosts("AI.example.com *.lan, 10.0.0.5 [fd00::1] *")).toEqual([
      "ai.example.com",
      "*.lan",
      "10.0.0.5",
      "[fd00::1]",
      "*",
    ]);
  });

  test.each(["https://a.example", "a.example:80", "a/b", "*a", "me@a", "%41", "a\\b"])(
    "parseHosts: %p is refused, and named",
    (text) => {
      expect(() => parseHosts(text)).toThrow("is not the name of a host");
    },
  );
});

describe("createOriginJudge", () => {
  const judge = createOriginJudge(
    parseOrigins(
      "https://app.example.com/ https://*.example.org http://host.test:* app://thing https://*.ports.example:* vscode-webview:// file:// http://[fd00::1]:81",
    ),
  );

  test.each([
    ["http://localhost", "loopback"],
    ["https://localhost:3000", "loopback"],
    ["http://127.0.0.1:8080", "loopback"],
    ["http://0.0.0.0:8080", "loopback"],
    ["http://[::1]:5173", "loopback"],
    ["http://tool.localhost:1", "loopback"],
    ["https://app.example.com", "listed"],
    ["https://a.b.example.org", "listed"],
    ["http://host.test:81", "listed"],
    ["http://host.test", "listed"],
    ["https://a.ports.example:5000", "listed"],
    ["app://thing", "listed"],
    ["vscode-webview://1a2b3c", "listed"],
    ["file://", "listed"],
    ["https://", "refused"],
    ["http://[fd00::1]:81", "listed"],
    ["https://example.org", "refused"],
    ["http://a.example.org", "refused"],
    ["https://a.example.org:444", "refused"],
    ["https://evilexample.org", "refused"],
    ["https://evil.example/.example.org", "refused"],
    ["https://evil.example#.example.org", "refused"],
    ["https://app.example.com.evil.example", "refused"],
    ["https://appXexample.com", "refused"],
    ["https://app.example.com:444", "refused"],
    ["http://app.example.com", "refused"],
    ["http://host.test:81/path", "refused"],
    ["http://localhost.evil.example", "refused"],
    ["http://localhost@evil.example", "refused"],
    ["http://evil.example\\@localhost", "refused"],
    ["http://127.0.0.1.evil.example", "refused"],
    ["ftp://localhost", "refused"],
    ["app://other", "refused"],
    ["app://thing.other", "refused"],
    ["null", "refused"],
    ["", "refused"],
    [`https://${"a".repeat(400)}.example.org`, "refused"],
  ])("judge: %p is %s", (origin, verdict) => {
    expect(judge(origin)).toBe(verdict as never);
  });

  test("judge: a star allows everything, also what has no origin", () => {
    const any = createOriginJudge(["*"]);

    expect(any("null")).toBe("any");
    expect(any("https://evil.example")).toBe("any");
    expect(any("http://localhost:1")).toBe("loopback");
  });

  test("judge: pages without an origin may be listed", () => {
    expect(createOriginJudge(["null"])("null")).toBe("listed");
    expect(createOriginJudge(["null"])("https://null")).toBe("refused");
  });

  test("judge: without a list nothing but loopback passes, whatever it is", () => {
    const closed = createOriginJudge([]);
    fc.assert(
      fc.property(fc.constantFrom("http", "https", "app"), fc.domain(), (scheme, domain) => {
        expect(closed(`${scheme}://${domain}`)).toBe("refused");
      }),
    );
  });

  test("judge: no name passes for a sub-domain of another one", () => {
    const one = createOriginJudge(["https://*.example.org"]);
    fc.assert(
      fc.property(fc.domain(), (domain) => {
        const isBelow = domain.endsWith(".example.org");
        expect(one(`https://${domain}`)).toBe(isBelow ? "listed" : "refused");
      }),
    );
  });
});
