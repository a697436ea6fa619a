import { describe, expect, test } from "bun:test";

import { llamacppReport } from "../../../backends/llamacpp/report.ts";

/** What of `/props` of llama-server 0.7.0 (build 11669) matters, started with `--ctx-size 2048 --parallel 4`. */
const PROPS = {
  default_generation_settings: { params: { seed: 4294967295 }, n_ctx: 512 },
  total_slots: 4,
  model_alias: "m",
  model_path: "/m.gguf",
  build_info: "b11669-Debian",
};

const report = (props: unknown) => llamacppReport(() => Promise.resolve(props));

describe("llamacppReport", () => {
  test("report: context is what one request may use", async () => {
    expect(await report(PROPS)).toEqual({
      context_size: 512,
      parallel: 4,
      model_path: "/m.gguf",
      build: "b11669-Debian",
    });
  });

  test.each<[string, unknown]>([
    ["null", null],
    ["a list", []],
    ["text", "props"],
    ["other members", { total_slots: "4", default_generation_settings: 5, model_path: null }],
    [
      "absurd numbers",
      {
        total_slots: -1,
        default_generation_settings: { n_ctx: 1e300 },
        model_path: "x".repeat(1e5),
      },
    ],
  ])("report: of %s nothing is taken", async (_what, props) => {
    expect(await report(props)).toEqual({});
  });

  test("report: it asks for one path, and what asking throws is passed on", async () => {
    const asked: string[] = [];
    const ask = (path: string): Promise<unknown> => {
      asked.push(path);
      return Promise.reject(new Error("no answer"));
    };

    const failure = await llamacppReport(ask).catch((error: unknown) => (error as Error).message);

    expect([failure, asked]).toEqual(["no answer", ["/props"]]);
  });
});
