import { describe, expect, test } from "bun:test";
import { startSpinner } from "../../src/terminal/spinner.ts";
import { eventually } from "../helpers/eventually.ts";
import { Emulator } from "./emulator.ts";
import { memoryStream } from "./streams.ts";

describe("startSpinner", () => {
  test("spinner: it turns and leaves nothing", async () => {
    const stream = memoryStream({ isTTY: true });
    const spinner = startSpinner({ text: "waiting", stream, delayMs: 0 });

    await eventually(() => stream.text.split("waiting").length > 3);
    spinner.stop();

    expect(new Emulator().write(stream.text).lines).toEqual([]);
  });

  test("spinner: what is over soon draws nothing", () => {
    const stream = memoryStream({ isTTY: true });

    startSpinner({ text: "waiting", stream, delayMs: 60_000 }).stop();

    expect(stream.text).toBe("");
  });

  test("spinner: a pipe gets nothing", () => {
    const stream = memoryStream();

    startSpinner({ text: "waiting", stream, delayMs: 0 }).stop();

    expect(stream.text).toBe("");
  });
});
