import { describe, expect, test } from "bun:test";
import { toDevices, toHost, toSetting } from "../../src/commands/rpc.ts";

describe("tug rpc serve", () => {
  test.each([
    [undefined, undefined, "127.0.0.1"],
    ["localhost", undefined, "127.0.0.1"],
    ["127.0.0.5", undefined, "127.0.0.5"],
    ["192.0.2.7", true, "192.0.2.7"],
    ["0.0.0.0", true, "0.0.0.0"],
  ])("host %p with --open-network %p listens on %s", (host, open, expected) => {
    expect(toHost({ host, "open-network": open })).toBe(expected);
  });

  test.each([
    ["0.0.0.0", /could run code on this machine/],
    ["192.0.2.7", /could run code on this machine/],
    ["::1", /is not an IPv4 address/],
    ["nas.lan", /is not an IPv4 address/],
    ["", /is not an IPv4 address/],
    ["127.0.0.1 --cache", /is not an IPv4 address/],
    ["x".repeat(10_000), /is not an IPv4 address/],
  ])("host %p is refused", (host, reason) => {
    expect(() => toHost({ host, "open-network": undefined })).toThrow(reason);
  });

  test("devices are names, in one word or several", () => {
    expect(toDevices(["CUDA0,CUDA1", "Vulkan0"])).toEqual(["CUDA0", "CUDA1", "Vulkan0"]);
    expect(toDevices([])).toEqual([]);
    for (const wrong of ["", "CUDA0,", "a b", "--cache x", "x".repeat(65)]) {
      expect(() => toDevices([wrong])).toThrow(/is not a device/);
    }
    expect(() => toDevices([Array(65).fill("a").join(",")])).toThrow(/is not a device/);
  });

  test("the other machine is told an address that it can reach", () => {
    expect(toSetting("127.0.0.1", 5, ["192.0.2.7"])).toBe('rpc_servers = ["127.0.0.1:5"]\n');
    expect(toSetting("0.0.0.0", 5, ["192.0.2.7"])).toBe('rpc_servers = ["192.0.2.7:5"]\n');
    expect(toSetting("0.0.0.0", 5, [])).toBe('rpc_servers = ["ADDRESS:5"]\n');
  });
});
