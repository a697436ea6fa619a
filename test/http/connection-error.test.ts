import { describe, expect, test } from "bun:test";
import { AppError } from "../../src/errors.ts";
import { connectionError, isConnectionFailure, reasonOf } from "../../src/http/connection-error.ts";

const URL_TEXT = "https://user:secret@registry.example.com/v2/?token=secret";

function failing(code: string): AppError {
  const error = connectionError(URL_TEXT, Object.assign(new Error("raw"), { code }));
  if (error instanceof AppError) return error;
  throw new Error(`not an AppError for ${code}`);
}

describe("connectionError", () => {
  test.each([
    ["ECONNREFUSED", "refused", false],
    ["ConnectionRefused", "refused", false],
    ["ENOTFOUND", "dns", false],
    ["EAI_AGAIN", "dns", false],
    ["EHOSTUNREACH", "unreachable", false],
    ["ECONNRESET", "closed", false],
    ["EPIPE", "closed", false],
    ["ETIMEDOUT", "timeout", false],
    ["HTTP2ProtocolError", "closed", false],
    ["ResponseHeadersTooLarge", "closed", false],
    ["UnrequestedUpgrade", "closed", false],
    ["EPERM", "unreachable", false],
    ["UnsupportedProxyProtocol", "proxy", true],
    ["ERR_PROXY_TUNNEL", "proxy", true],
    ["EPROTO", "tls", true],
    ["ERR_SSL_WRONG_VERSION_NUMBER", "tls", true],
    ["UNABLE_TO_VERIFY_LEAF_SIGNATURE", "certificate", true],
    ["DEPTH_ZERO_SELF_SIGNED_CERT", "certificate", true],
    ["CERT_HAS_EXPIRED", "certificate", true],
    ["ERR_TLS_CERT_ALTNAME_INVALID", "certificate", true],
    ["CERT_SOMETHING_NEW", "certificate", true],
  ])("%s is %s; for good: %p", (code, reason, isPermanent) => {
    const error = failing(code);

    expect(error.code).toBe("registry_unavailable");
    expect(reasonOf(error)).toBe(reason);
    expect(error.details?.["permanent"] === true).toBe(isPermanent);
    expect(error.message).toStartWith("cannot reach `registry.example.com`: ");
    expect(error.message).not.toContain("secret");
    expect(error.hint).toEndWith(".");
  });

  test("an unknown authority leads to the CA bundle", () => {
    const error = failing("UNABLE_TO_VERIFY_LEAF_SIGNATURE");

    expect(error.message).toEndWith(
      "its certificate is not accepted: it is signed by an unknown authority",
    );
    expect(error.hint).toContain("TUG_CA_BUNDLE");
    expect(error.hint).toContain("TUG_CA_BUNDLE");
  });

  test.each([
    ["407 Who are you?", true, /account into HTTPS_PROXY/],
    ["403 No", true, /NO_PROXY/],
    ["502 Bad", false, /NO_PROXY/],
  ])("a proxy that says %s", (answer, isPermanent, hint) => {
    const thrown = Object.assign(new Error(`Proxy refused to open a tunnel: ${answer}`), {
      code: "ERR_PROXY_TUNNEL",
    });
    const error = connectionError(URL_TEXT, thrown) as AppError;

    expect(error.message).toEndWith(`refuses to connect to it (${answer.slice(0, 3)})`);
    expect(error.details?.["permanent"] === true).toBe(isPermanent);
    expect(error.hint).toMatch(hint);
  });

  test("the cause, which is logged, has no secrets of the address", () => {
    const thrown = Object.assign(new Error(`failed fetching "${URL_TEXT}". For more`), {
      code: "ECONNRESET",
      path: URL_TEXT,
    });
    const { cause } = connectionError(URL_TEXT, thrown) as AppError;

    expect(Bun.inspect(cause)).not.toContain("secret");
    expect((cause as Error).message).toBe(
      'failed fetching "https://registry.example.com/v2/". For more',
    );
  });

  test("what is no failure of the network comes back as it is", () => {
    const own = new Error("mine");
    const coded = Object.assign(new Error("mine"), { code: "ENOSPC" });

    expect(connectionError(URL_TEXT, own)).toBe(own);
    expect(connectionError(URL_TEXT, coded)).toBe(coded);
  });

  test("only what came before any answer counts as a failed connection", () => {
    expect(isConnectionFailure(failing("ECONNREFUSED"))).toBe(true);
    expect(isConnectionFailure(failing("ECONNRESET"))).toBe(false);
    expect(isConnectionFailure(new Error("x"))).toBe(false);
  });
});
