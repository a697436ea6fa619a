import { describe, expect, test } from "bun:test";
import { WARNINGS } from "../../src/api/headers.ts";
import { createApp } from "../../src/server/app.ts";
import type { RunnerControl } from "../../src/server/deps.ts";
import type { LogQuery } from "../../src/server/log-reader.ts";
import { parseSince } from "../../src/server/routes/logs.ts";
import { PEBBLE_ID, fakeDeps } from "./fake-deps.ts";

const RUNNER: RunnerControl = {
  info: () => Promise.reject(new Error("nobody asks")),
  isStopping: false,
  stop: () => undefined,
};

interface Rig {
  readonly queries: LogQuery[];
  readonly get: (query: string, trusted?: boolean) => Promise<Response>;
}

function rig({ hasRunnerLog = true, hasRunner = true, apiKey = "" } = {}): Rig {
  const queries: LogQuery[] = [];
  const logs = {
    hasRunnerLog,
    read(query: LogQuery) {
      queries.push(query);
      return new Blob(["said\n"]).stream();
    },
  };
  const app = createApp(
    fakeDeps({
      logs,
      ...(hasRunner ? { runner: RUNNER } : {}),
      ...(apiKey === "" ? {} : { apiKey }),
    }),
  );
  const headers = { authorization: `Bearer ${apiKey}` };
  return {
    queries,
    get: async (query, trusted = true) => app.request(`/logs${query}`, { headers }, { trusted }),
  };
}

describe("GET /logs", () => {
  test("logs: everything unless something else is asked for", async () => {
    const { get, queries } = rig();

    const answer = await get("");
    await get("?follow&since=2026-01-31T12:00:00Z&tail=5&no-engines=true");
    await get("?tail=all&follow=false&since=&model=");

    expect(await answer.text()).toBe("said\n");
    expect(answer.headers.get("content-type")).toBe("text/plain; charset=utf-8");
    expect(queries).toEqual([
      { follow: false, engines: true, tail: undefined },
      { follow: true, engines: false, tail: 5, sinceMs: Date.parse("2026-01-31T12:00:00Z") },
      { follow: false, engines: true, tail: undefined },
    ]);
  });

  test("logs: a model is known by all its names, one that is gone by what it was called", async () => {
    const { get, queries } = rig();

    await get("?model=pebble");
    await get("?model=gone");

    expect(queries.map(({ models }) => models)).toEqual([
      ["pebble", "pebble", PEBBLE_ID],
      ["gone"],
    ]);
  });

  test.each([
    "?follow=maybe",
    "?no-engines=2",
    "?tail=-1",
    "?tail=1.5",
    "?tail=100001",
    "?tail=99999999999999999999",
    "?tail=%00",
    "?since=yesterday",
    "?since=-5m",
    "?since=2026-13-45",
    "?since=2026-01-31T12:00:00+99",
    "?since=10",
    "?since=5000000000000000000000d",
    `?since=${"1".repeat(5000)}`,
  ])("logs: %s is refused, saying what would be right", async (query) => {
    const { get, queries } = rig();

    const answer = await get(query);
    const { error } = (await answer.json()) as { error: { message: string; hint?: string } };

    expect(answer.status).toBe(400);
    expect(error.message.length).toBeLessThan(250);
    expect(error.hint).toBeString();
    expect(queries).toEqual([]);
  });

  test("logs: without a runner there is what was said, and nothing to follow", async () => {
    const { get } = rig({ hasRunner: false });

    expect((await get("")).status).toBe(200);
    expect((await get("?follow=true")).status).toBe(503);
    expect((await createApp(fakeDeps()).request("/logs")).status).toBe(501);
  });

  test("logs: what engines print is for who may see prompts, the runner's own lines are for all", async () => {
    const open = rig();
    const locked = rig({ apiKey: "k" });

    const refused = await open.get("", false);

    expect(refused.status).toBe(403);
    expect(await refused.json()).toMatchObject({
      error: { code: "forbidden", hint: expect.stringContaining("no-engines=true") },
    });
    expect((await open.get("?follow&no-engines=false", false)).status).toBe(403);
    expect((await open.get("?no-engines=true", false)).status).toBe(200);
    expect((await locked.get("", false)).status).toBe(200);
    expect(open.queries.map(({ engines }) => engines)).toEqual([false]);
  });

  test("logs: of a runner at a terminal there are the engines' only, and the answer says so", async () => {
    const { get } = rig({ hasRunnerLog: false });

    const answer = await get("");

    expect(decodeURIComponent(answer.headers.get(WARNINGS) ?? "")).toContain("terminal");
    expect(await answer.text()).toBe("said\n");
    expect((await get("?no-engines")).status).toBe(501);
  });
});

describe("parseSince", () => {
  const NOW = Date.parse("2026-01-31T12:00:00Z");

  test.each([
    ["10m", NOW - 600_000],
    ["1h30m", NOW - 5_400_000],
    ["250ms", NOW - 250],
    ["2026-01-31T11:00:00Z", NOW - 3_600_000],
    ["2026-01-31t11:00:00.5z", NOW - 3_599_500],
    ["2026-01-31 13:00:00+02:00", NOW - 3_600_000],
    ["2026-01-31", NOW - 12 * 3_600_000],
  ])("since: %s", (text, expected) => {
    expect(parseSince(text, NOW)).toBe(expected);
  });
});
