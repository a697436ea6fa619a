import { describe, expect, test } from "bun:test";
import { PRIVATE_DOMAINS } from "../../../src/server/tls/domains.ts";
import { addressBytes, certificateNames } from "../../../src/server/tls/names.ts";

const DOMAINS = [...PRIVATE_DOMAINS, "box"];

describe("certificateNames", () => {
  test("names: of the machine, of its networks, and what the user calls it", () => {
    const { names, leftOut } = certificateNames(
      {
        hostname: "Box",
        addresses: ["127.0.0.1", "192.168.1.5", "fd00::5", "203.0.113.9"],
        others: ["0.0.0.0", "nas.lan", "[fd00::1]"],
      },
      DOMAINS,
    );

    expect(names).toEqual([
      "localhost",
      "host.docker.internal",
      "127.0.0.1",
      "::1",
      "nas.lan",
      "fd00::1",
      "box",
      "192.168.1.5",
      "fd00::5",
      "203.0.113.9",
    ]);
    expect(leftOut).toEqual([]);
  });

  test("names: those that the authority may not sign for are left out, and said", () => {
    const { names, leftOut } = certificateNames(
      { hostname: "renamed", addresses: [], others: ["ai.example.com", "*.lan"] },
      DOMAINS,
    );

    expect(names).not.toContain("renamed");
    expect(leftOut).toEqual(["ai.example.com", "renamed"]);
  });

  test("names: hundreds of interfaces make no huge certificate", () => {
    const addresses = Array.from({ length: 300 }, (_, index) => `10.0.${index % 200}.${index % 7}`);

    const { names } = certificateNames({ hostname: "box", addresses, others: [] }, DOMAINS);

    expect(names.length).toBeLessThan(40);
  });
});

describe("addressBytes", () => {
  test.each([
    ["10.1.2.3", [10, 1, 2, 3]],
    ["::1", [...Array<number>(15).fill(0), 1]],
    ["fd00::1:2", [0xfd, ...Array<number>(12).fill(0), 1, 0, 2]],
    ["1:2:3:4:5:6:7:8", [0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 8]],
    ["::ffff:10.0.0.1", [...Array<number>(10).fill(0), 255, 255, 10, 0, 0, 1]],
    ["fd00::%eth0", [0xfd, ...Array<number>(15).fill(0)]],
  ])("addressBytes: %s", (address, bytes) => {
    expect(addressBytes(address)).toEqual(bytes);
  });
});
