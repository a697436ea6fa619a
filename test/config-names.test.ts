import { describe, expect, test } from "bun:test";
import { parseImagePrefixes, parseRpcServers } from "../src/config-names.ts";

describe("addresses of RPC servers", () => {
  test("commas or spaces part them, and each stands once", () => {
    expect(parseRpcServers("192.0.2.7:50052, NAS.lan:1 192.0.2.7:50052")).toEqual([
      "192.0.2.7:50052",
      "nas.lan:1",
    ]);
    expect(parseRpcServers("")).toEqual([]);
  });

  test.each([
    "192.0.2.7",
    "192.0.2:5",
    "192.0.2.700:5",
    "host:0",
    "host:65536",
    "host:5:6",
    "[::1]:5",
    "::1:5",
    "http://host:5",
    "user@host:5",
    "--model:5",
    "host:-5",
    "h\0st:5",
    "x".repeat(400),
  ])("%j is none", (text) => {
    expect(() => parseRpcServers(text)).toThrow(/is not the address of an RPC server/);
  });

  test("more than llama.cpp takes are refused", () => {
    const many = Array.from({ length: 17 }, (_, index) => `host:${index + 1}`).join(",");

    expect(() => parseRpcServers(many)).toThrow(/more than 16 servers/);
  });
});

describe("beginnings of images' names", () => {
  test("commas or spaces part them, and each ends with a slash", () => {
    const text = "r.example/nim, localhost:5000/NIM/x/ [::1]:5000/a";

    expect(parseImagePrefixes(text)).toEqual([
      "r.example/nim/",
      "localhost:5000/nim/x/",
      "[::1]:5000/a/",
    ]);
    expect(parseImagePrefixes("")).toEqual([]);
  });

  test.each([
    "nim/x",
    "r.example",
    "r.example/",
    "r.example/a b/",
    "r.example/*",
    "https://r.example/nim",
    "r.example//x",
  ])("%p is none", (text) => {
    // A space parts two, of which one is none.
    expect(() => parseImagePrefixes(text)).toThrow("is not the beginning of images' names");
  });
});
