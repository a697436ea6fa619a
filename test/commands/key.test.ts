import { describe, expect, test } from "bun:test";
import { parseKeyRate, toExpiry, toScopes } from "../../src/commands/key.ts";
import { lanAddresses } from "../../src/commands/lan.ts";

const NOW = Date.parse("2030-01-01T00:00:00Z");

describe("tug key", () => {
  test.each([
    ["30d", "2030-01-31T00:00:00.000Z"],
    ["1h30m", "2030-01-01T01:30:00.000Z"],
    ["2031-01-01", "2031-01-01T00:00:00.000Z"],
    ["2031-01-01T12:00:00+02:00", "2031-01-01T10:00:00.000Z"],
  ])("ends at %s: %s", (text, expected) => {
    expect(toExpiry(text, NOW)).toBe(expected);
  });

  test.each(["0", "-1", "-30d", "2029-12-31", "soon", "", "11000d", "2031-13-01"])(
    "does not end at %j",
    (text) => {
      expect(() => toExpiry(text, NOW)).toThrow(expect.objectContaining({ code: "usage" }));
    },
  );

  test.each([
    ["60/min", 60],
    ["60", 60],
    ["5 / minute", 5],
    ["1/m", 1],
  ])("a rate of %s is %d", (text, expected) => {
    expect(parseKeyRate(text)).toBe(expected);
  });

  test.each(["0", "-1", "1.5", "60/s", "60/h", "many", "", "99999999"])(
    "%j is not a rate",
    (text) => {
      expect(() => parseKeyRate(text)).toThrow(expect.objectContaining({ code: "usage" }));
    },
  );

  test("scopes come with commas, again and again, in any order", () => {
    expect(toScopes(["models,inference", "models"])).toEqual(["inference", "models"]);
    expect(() => toScopes(["models,root"])).toThrow("`root` is not a scope");
    expect(() => toScopes([""])).toThrow("is not a scope");
  });
});

describe("addresses on the local network", () => {
  test("are those under which others reach this machine", () => {
    const found = lanAddresses({
      lo: [address("127.0.0.1", { internal: true })],
      eth0: [address("192.168.1.5"), address("2001:db8::1", { family: "IPv6" })],
      wlan0: [address("10.0.0.7")],
      docker0: [address("172.17.0.1")],
      eth1: [address("169.254.3.4")],
      none: undefined,
    });

    expect(found).toEqual(["192.168.1.5", "10.0.0.7"]);
  });

  test("are a few", () => {
    const many = Array.from({ length: 100 }, (_, index) => address(`10.0.0.${index}`));

    expect(lanAddresses({ eth0: many })).toHaveLength(8);
  });
});

function address(text: string, rest: object = {}): never {
  return { address: text, family: "IPv4", internal: false, ...rest } as never;
}
