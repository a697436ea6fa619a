import { describe, expect, test } from "bun:test";
import { parseChallenges } from "../../src/oci/challenge.ts";

function parsed(header: string | null): unknown {
  return parseChallenges(header).map(({ scheme, params }) => [scheme, Object.fromEntries(params)]);
}

describe("parseChallenges", () => {
  test.each([
    [
      'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push"',
      [
        [
          "bearer",
          {
            realm: "https://auth.docker.io/token",
            service: "registry.docker.io",
            scope: "repository:a/b:pull,push",
          },
        ],
      ],
    ],
    [
      'Basic realm="a", Bearer realm="b" , service = "c"',
      [
        ["basic", { realm: "a" }],
        ["bearer", { realm: "b", service: "c" }],
      ],
    ],
    ["BASIC", [["basic", {}]]],
    [
      "Negotiate, Basic realm=x",
      [
        ["negotiate", {}],
        ["basic", { realm: "x" }],
      ],
    ],
    [
      "Negotiate YWJj==, Bearer realm=x",
      [
        ["negotiate", {}],
        ["bearer", { realm: "x" }],
      ],
    ],
    ['Bearer realm="with \\"quotes\\" and \\\\"', [["bearer", { realm: 'with "quotes" and \\' }]]],
    [
      "Bearer realm=https://host/token,service=s",
      [["bearer", { realm: "https://host/token", service: "s" }]],
    ],
    ['Bearer realm="first",REALM="second"', [["bearer", { realm: "first" }]]],
    [', ,Bearer realm="a",', [["bearer", { realm: "a" }]]],
    ['Bearer realm=""', [["bearer", { realm: "" }]]],
    ['Bearer realm="not closed', [["bearer", {}]]],
    ["Bearer realm=", [["bearer", {}]]],
    ["", []],
    [null, []],
    ['"quoted"', []],
    ["=,=,=", []],
  ])("%p", (header, expected) => {
    expect(parsed(header)).toEqual(expected);
  });

  test("a header of absurd length is none", () => {
    expect(parsed(`Bearer realm="${"x".repeat(10_000)}"`)).toEqual([]);
  });

  test("many challenges and parameters are bounded", () => {
    const many = parseChallenges("A a=b,".repeat(1000));
    const params = parseChallenges(
      `Bearer ${Array.from({ length: 500 }, (_, at) => `p${at}=x`).join(",")}`,
    );

    expect(many).toHaveLength(8);
    expect(params[0]?.params.size).toBe(16);
  });

  test("hostile text takes no time to speak of", () => {
    const startedMs = performance.now();

    for (const text of ["\\", '"', " ", "=", "a", 'a="', "a ", "a=b "]) {
      parseChallenges(`Bearer realm="${text.repeat(8000 / text.length)}`);
    }

    expect(performance.now() - startedMs).toBeLessThan(1000);
  });
});
