import { describe, expect, test } from "bun:test";
import { parseWords, registryError, type RefusalContext } from "../../src/oci/registry-error.ts";

const context: RefusalContext = {
  subject: "docker.io/me/m:1",
  verb: "read",
  registry: "docker.io",
  account: undefined,
  signal: new AbortController().signal,
};
const account = { username: "ann", source: "~/.docker/config.json" };

function refuse(status: number, body = "", headers: Record<string, string> = {}): Response {
  return new Response(body, { status, headers });
}

describe("registryError", () => {
  test("401 without logging in: it may not exist, and how to log in", async () => {
    const error = await registryError(refuse(401), context);

    expect(error.code).toBe("unauthorized");
    expect(error.message).toBe(
      "cannot read `docker.io/me/m:1`: it does not exist, or you, without logging in, may not read it",
    );
    expect(error.hint).toBe("Check the name, or log in with `tug login docker.io`.");
  });

  test("401 with an account names it and where it comes from", async () => {
    const error = await registryError(refuse(401), { ...context, account });

    expect(error.message).toEndWith(
      "it does not exist, or `ann` from ~/.docker/config.json may not read it",
    );
    expect(error.hint).toContain("another account");
  });

  test("an account that is refused itself is named", async () => {
    const error = await registryError(refuse(401, '{"details":"incorrect username or password"}'), {
      ...context,
      account,
      isAboutAccount: true,
    });

    expect(error.message).toEndWith(
      "the registry does not accept `ann` from ~/.docker/config.json (the registry says: incorrect username or password)",
    );
    expect(error.hint).toStartWith("Log in with `tug login docker.io`");
  });

  test.each([
    [undefined, "write to", "you may not write to it without logging in"],
    [account, "delete", "`ann` from ~/.docker/config.json may not delete it"],
  ] as const)("403 says who may not", async (who, verb, expected) => {
    const error = await registryError(refuse(403), { ...context, account: who, verb });

    expect(error.code).toBe("forbidden");
    expect(error.message).toEndWith(expected);
  });

  test("404 keeps the registry's words and codes", async () => {
    const body =
      '{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{}}]}';

    const error = await registryError(refuse(404, body), context);

    expect(error.code).toBe("not_found");
    expect(error.message).toEndWith("(the registry says: manifest unknown)");
    expect(error.details).toEqual({
      status: 404,
      registry: "docker.io",
      codes: ["MANIFEST_UNKNOWN"],
    });
  });

  test.each([
    ["30", "Try again in 30 s. Logging in with `tug login docker.io` may raise the limit."],
    ["3600", "Try again in 60 minutes. Logging in with `tug login docker.io` may raise the limit."],
  ])("429 says when to try again: %s", async (after, hint) => {
    const error = await registryError(refuse(429, "", { "retry-after": after }), context);

    expect(error.code).toBe("too_many_requests");
    expect(error.hint).toBe(hint);
    expect(error.details?.["retry_after_ms"]).toBe(Number(after) * 1000);
  });

  test("429 with an account does not advise to log in", async () => {
    const error = await registryError(refuse(429), { ...context, account });

    expect(error.hint).toBe("Try again later.");
    expect(error.message).toContain("`ann`");
  });

  test.each([
    [503, undefined, "Try again later."],
    [400, true, undefined],
  ])("status %p: permanent %p, hint %p", async (status, permanent, hint) => {
    const error = await registryError(refuse(status), context);

    expect(error.code).toBe("registry_unavailable");
    expect(error.details?.["permanent"]).toBe(permanent as never);
    expect(error.hint).toBe(hint as never);
  });

  test("a body that is too large or stalls does not keep the error", async () => {
    const endless = new ReadableStream<Uint8Array>({
      pull: (controller) => controller.enqueue(new Uint8Array(10_000)),
    });

    const error = await registryError(new Response(endless, { status: 404 }), context);

    expect(error.code).toBe("not_found");
  });

  test("hostile words are cut and cannot steer a terminal", async () => {
    const message = `\u001B[2J${"x".repeat(5000)}`;
    const body = JSON.stringify({ errors: [{ code: `C${"\n".repeat(99)}`, message }] });

    const error = await registryError(refuse(404, body), context);

    expect(error.message).not.toContain("\u001B");
    expect(error.message.length).toBeLessThan(400);
  });
});

test.each([
  [
    '{"errors":[{"code":"A","message":"b"},{"code":"C"}]}',
    [
      { code: "A", text: "b" },
      { code: "C", text: "" },
    ],
  ],
  ['{"errors":[1,2,3,{"code":"D"}]}', []],
  [
    `{"errors":[${'{"code":"A"},'.repeat(9)}{"code":"A"}]}`,
    [
      { code: "A", text: "" },
      { code: "A", text: "" },
      { code: "A", text: "" },
    ],
  ],
  ['{"errors":{"a":1},"message":"m"}', [{ code: "", text: "m" }]],
  ['{"error":"invalid_grant","error_description":"bad"}', [{ code: "", text: "bad" }]],
  ['{"error":"invalid_grant","error_description":""}', [{ code: "", text: "invalid_grant" }]],
  ['{"errors":[{"code":1,"message":{"x":1},"detail":"d"}]}', [{ code: "", text: "d" }]],
  ["<html>long</html>", []],
  ["plain words", [{ code: "", text: "plain words" }]],
  ["[1]", []],
  ["null", []],
  ["", []],
])("parseWords: %s", (body, expected) => {
  expect(parseWords(Buffer.from(body))).toEqual(expected);
});
