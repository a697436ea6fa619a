import { describe, expect, spyOn, test } from "bun:test";
import type { PullJob, PushResult } from "../../src/api/models.ts";
import { parseArguments } from "../../src/commands/arguments.ts";
import { command as exportCommand, toExportRequest } from "../../src/commands/export.ts";
import { toLines } from "../../src/commands/import.ts";
import { command as loginCommand, toPassword, toRegistry } from "../../src/commands/login.ts";
import { command as pullCommand, pinned, toPullRequest } from "../../src/commands/pull.ts";
import { progressOf, toCancel } from "../../src/commands/pulls.ts";
import { describePush, pushed } from "../../src/commands/push.ts";
import { readRequestLine } from "../../src/commands/request-line.ts";
import { formatCount, parseLimit } from "../../src/commands/search.ts";
import { withTransferProgress } from "../../src/commands/transfer.ts";
import { AppError } from "../../src/errors.ts";
import { eventually } from "../helpers/eventually.ts";

const DIGEST = `sha256:${"a".repeat(64)}`;

const pullRequest = (...words: string[]) => toPullRequest(parseArguments(pullCommand.args, words));

const exportRequest = (...words: string[]) =>
  toExportRequest(parseArguments(exportCommand.args, words));

/** The code that comes of it, and what stderr was told. */
async function outcomeOf(thrown: Error): Promise<[code: string, said: string]> {
  const write = spyOn(process.stderr, "write").mockImplementation(() => true);
  try {
    const options = { quiet: true, kept: "It is kept." };
    await withTransferProgress(options, () => Promise.reject(thrown));
    return ["nothing thrown", ""];
  } catch (error) {
    return [(error as AppError).code, write.mock.calls.map(([text]) => String(text)).join("")];
  } finally {
    write.mockRestore();
  }
}

function codeOf(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    return (error as AppError).code;
  }
  return "nothing thrown";
}

describe("pull", () => {
  test("turns its flags into a request", () => {
    expect(
      pullRequest(
        "hf.co/Org/Model:Q4_K_M",
        "--platform",
        "linux/arm64/v8",
        "--connections",
        "16",
        "--limit-rate",
        "10MB",
        "--insecure",
      ),
    ).toEqual({
      from: "hf.co/Org/Model:Q4_K_M",
      platform: "linux/arm64/v8",
      connections: 16,
      limit_rate: 10_000_000,
      insecure: true,
    });
    expect(pullRequest("m")).toEqual({ from: "m" });
  });

  test.each([
    [["--platform", "linux"]],
    [["--platform", "linux/amd64/v1/x"]],
    [["--connections", "0"]],
    [["--connections", "65"]],
    [["--limit-rate", "fast"]],
  ])("refuses %j", (flags) => {
    expect(codeOf(() => pullRequest("m", ...flags))).toBe("usage");
  });

  test("names the digest once", () => {
    expect(pinned({ reference: "docker.io/ai/m:v1", id: DIGEST })).toBe(
      `docker.io/ai/m:v1@${DIGEST}`,
    );
    expect(pinned({ reference: `docker.io/ai/m@${DIGEST}`, id: DIGEST })).toBe(
      `docker.io/ai/m@${DIGEST}`,
    );
  });
});

describe("what is interrupted", () => {
  test.each([
    ["cancelled", new AppError("cancelled", "cancelled")],
    ["aborted", new DOMException("The operation was aborted.", "AbortError")],
  ])("says once that what was done is kept (%s)", async (_, thrown) => {
    expect(await outcomeOf(thrown)).toEqual(["cancelled", "It is kept.\n"]);
  });

  test("says nothing of the kind where something failed", async () => {
    expect(await outcomeOf(new AppError("offline", "cannot reach it"))).toEqual(["offline", ""]);
  });
});

describe("the runner's request", () => {
  const signal = new AbortController().signal;

  test("is a line, and the end of stdin is noticed later", async () => {
    const { readable, writable } = new TransformStream<Uint8Array, Uint8Array<ArrayBuffer>>();
    const writer = writable.getWriter();
    let ended = false;

    const line = readRequestLine({ signal, onEnd: () => (ended = true), input: readable });
    const text = JSON.stringify({ from: "m", "bearer-token": "日本" });
    const bytes = new TextEncoder().encode(`${text}\n`);
    await writer.write(bytes.subarray(0, 30));
    await writer.write(bytes.subarray(30));

    expect(await line).toBe(text);
    expect(ended).toBe(false);
    await writer.close();
    await eventually(() => ended);
  });

  test.each([
    ["an end before the line's", "no end", "invalid_request"],
    ["a line without end", "x".repeat(70_000), "request_too_large"],
  ] as const)("%s is refused", async (_, text, code) => {
    const input = new Blob([text]).stream();

    const thrown = await readRequestLine({ signal, onEnd: () => undefined, input }).catch(
      (error: unknown) => error,
    );

    expect((thrown as AppError).code).toBe(code);
  });
});

describe("pulls", () => {
  const job: PullJob = {
    id: "0a1b2c3d",
    model: "m",
    state: "running",
    done_bytes: 2_500_000,
    total_bytes: 10_000_000,
    started_at: "2026-01-02T03:04:05Z",
    ended_at: null,
    error: null,
  };

  test.each([
    [{}, "25% of 10.00MB"],
    [{ total_bytes: null }, "2.50MB"],
    [{ state: "done", done_bytes: 0, total_bytes: null }, "-"],
    [{ done_bytes: 0, total_bytes: 0 }, "100% of 0B"],
    [
      { state: "failed", error: { code: "offline", message: "cannot reach it", hint: null } },
      "cannot reach it",
    ],
  ] as const)("shows how far it is (%j)", (change, text) => {
    expect(progressOf({ ...job, ...change })).toBe(text);
  });

  test("cancels what is named", () => {
    expect(toCancel(undefined, [])).toEqual([]);
    expect(toCancel("cancel", ["a", "b"])).toEqual(["a", "b"]);
    expect(codeOf(() => toCancel("cancel", []))).toBe("usage");
    expect(codeOf(() => toCancel("stop", ["a"]))).toBe("usage");
  });
});

describe("push", () => {
  const result: PushResult = {
    reference: "localhost:5000/me/m:v1",
    digest: DIGEST,
    size_bytes: 10_000_000,
    uploaded_bytes: 7_000_000,
    reused_bytes: 3_000_000,
  };

  test.each([
    [{}, "Uploaded 7.00MB; 3.00MB were there already."],
    [{ reused_bytes: 0 }, "Uploaded 7.00MB."],
  ])("says what crossed the network (%j)", (change, text) => {
    expect(describePush({ ...result, ...change })).toBe(text);
  });

  test("prints the reference with its digest", () => {
    expect(pushed(result)).toBe(`localhost:5000/me/m:v1@${DIGEST}`);
  });
});

describe("login", () => {
  test.each([
    ["secret\n", "secret"],
    ["secret\r\n", "secret"],
    [" with spaces ", " with spaces "],
    ['{\n  "type": "service_account"\n}\n', '{\n  "type": "service_account"\n}'],
  ])("takes %j as it was meant", (text, password) => {
    expect(toPassword(text)).toBe(password);
  });

  test.each(["", "\n", "\r\n\n"])("refuses %j", (text) => {
    expect(codeOf(() => toPassword(text))).toBe("usage");
  });

  test.each([
    [undefined, "docker.io"],
    ["ghcr.io", "ghcr.io"],
    ["https://ghcr.io", "ghcr.io"],
    ["http://localhost:5000/v2/", "localhost:5000"],
  ])("takes the address %p for %p", (typed, registry) => {
    expect(toRegistry(typed)).toBe(registry);
  });

  test("takes no password as an argument, and does not repeat it", async () => {
    const context = { args: parseArguments(loginCommand.args, ["ghcr.io", "-p", "hunter2"]) };

    const thrown = await loginCommand
      .run(context as Parameters<typeof loginCommand.run>[0])
      .catch((error: unknown) => error);

    expect(thrown).toBeInstanceOf(AppError);
    const { code, message, hint } = thrown as AppError;
    expect(code).toBe("usage");
    expect(hint).toContain("--password-stdin");
    expect(message + hint).not.toContain("hunter2");
  });
});

describe("search", () => {
  test.each([
    [null, ""],
    [0, "0"],
    [999, "999"],
    [1000, "1K"],
    [1234, "1.2K"],
    [9960, "10K"],
    [999_499, "999K"],
    [999_500, "1M"],
    [35_000_000, "35M"],
    [2_000_000_000_000, "2000B"],
  ])("shows the count %p as %p", (count, text) => {
    expect(formatCount(count)).toBe(text);
  });

  test("has a bound", () => {
    expect([parseLimit(undefined), parseLimit("1"), parseLimit("1000")]).toEqual([25, 1, 1000]);
    for (const text of ["0", "1001", "x", "-1", "1.5", ""])
      expect(codeOf(() => parseLimit(text))).toBe("usage");
  });
});

describe("export and import", () => {
  test("paths become absolute", () => {
    expect(exportRequest("a", "b", "--missing-from", "x.tar")).toEqual({
      models: ["a", "b"],
      missing_from: `${process.cwd()}/x.tar`,
    });
    expect(exportRequest("a", "-o", "x.tar")).toEqual({ models: ["a"] });
  });

  test("an imported model has a line for each of its names", () => {
    const model = {
      id: DIGEST,
      created: 0,
      size_bytes: 1,
      config: {
        format: null,
        quantization: null,
        parameters: null,
        architecture: null,
        size: null,
        context_size: null,
        gguf: null,
      },
    };

    expect(toLines({ ...model, tags: ["docker.io/ai/m:latest", "docker.io/me/m:v1"] })).toEqual([
      `m@${DIGEST}\n`,
      `me/m:v1@${DIGEST}\n`,
    ]);
    expect(toLines({ ...model, tags: [] })).toEqual([`${DIGEST}\n`]);
  });
});
