import { expect, test } from "bun:test";

import { readWeightLoading } from "../../src/runtime/weight-loading.ts";

const cpuinfo = (flags: string) => () =>
  Promise.resolve(`processor : 0\nflags\t\t: ${flags}\n\nprocessor : 1\nflags : none\n`);

const unreadable = () => Promise.reject(new Error("no such file"));

test("weight loading: what the first processor can do decides what is rearranged", async () => {
  const options = { platform: "linux", arch: "x64" } as const;

  const plain = await readWeightLoading({ ...options, readText: cpuinfo("fpu sse2") });
  const avx2 = await readWeightLoading({ ...options, readText: cpuinfo("fpu avx2 sse2") });

  expect(plain).toEqual({ isMapped: true });
  expect(avx2.rearranged?.has("Q4_0")).toBe(true);
});

test("weight loading: on macOS weights are not mapped; what cannot be read says nothing", async () => {
  expect(
    await readWeightLoading({ platform: "darwin", arch: "x64", readText: unreadable }),
  ).toEqual({
    isMapped: false,
  });
  expect(await readWeightLoading({ platform: "linux", arch: "x64", readText: unreadable })).toEqual(
    {
      isMapped: true,
    },
  );
});
