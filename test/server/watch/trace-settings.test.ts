import { describe, expect, test } from "bun:test";
import {
  parseTraceparent,
  readTraceSettings,
  type TraceSettings,
} from "../../../src/server/watch/trace-settings.ts";

const ENDPOINT = { OTEL_EXPORTER_OTLP_ENDPOINT: "http://localhost:4318/" };

const read = (env: Record<string, string>) =>
  readTraceSettings({ ...ENDPOINT, ...env }) as TraceSettings;

describe("readTraceSettings", () => {
  test("asks for nothing where no collector is named", () => {
    expect(readTraceSettings({})).toBeUndefined();
    expect(readTraceSettings({ OTEL_EXPORTER_OTLP_ENDPOINT: "" })).toBeUndefined();
  });

  test("goes to the collector's path for traces, as tug", () => {
    expect(read({})).toEqual({
      url: "http://localhost:4318/v1/traces",
      headers: {},
      resource: { "service.name": "tug" },
      sampler: { heedsParent: true, ratio: 1 },
      timeoutMs: 10_000,
    });
  });

  test("takes the address of traces as it is", () => {
    const env = { OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: "https://c.example/in" };

    expect(read(env).url).toBe("https://c.example/in");
  });

  test("reads headers and attributes as pairs, percent-encoded, and drops what is none", () => {
    const settings = read({
      OTEL_EXPORTER_OTLP_HEADERS: "authorization=Bearer%20x=y, broken ,=z,a b=c,bad=%zz",
      OTEL_RESOURCE_ATTRIBUTES: "service.name=other,host.name=h",
      OTEL_SERVICE_NAME: "mine",
    });

    expect(settings.headers).toEqual({ authorization: "Bearer x=y", bad: "%zz" });
    expect(settings.resource).toEqual({ "service.name": "mine", "host.name": "h" });
  });

  test.each([
    ["OTEL_TRACES_SAMPLER", "always_off"],
    ["OTEL_SDK_DISABLED", "true"],
    ["OTEL_TRACES_EXPORTER", "none"],
  ])("sends nothing with %s=%s", (name, value) => {
    expect(readTraceSettings({ ...ENDPOINT, [name]: value })).toBeUndefined();
  });

  test.each([
    ["always_on", "", { heedsParent: false, ratio: 1 }],
    ["parentbased_always_off", "", { heedsParent: true, ratio: 0 }],
    ["traceidratio", "0.25", { heedsParent: false, ratio: 0.25 }],
    ["parentbased_traceidratio", "", { heedsParent: true, ratio: 1 }],
  ])("samples with %s %s", (name, argument, sampler) => {
    const env = { OTEL_TRACES_SAMPLER: name, OTEL_TRACES_SAMPLER_ARG: argument };

    expect(read(env).sampler).toEqual(sampler);
  });

  test.each([
    [{ OTEL_EXPORTER_OTLP_ENDPOINT: "nonsense" }, "no http address"],
    [{ OTEL_EXPORTER_OTLP_ENDPOINT: "grpc://x:4317" }, "no http address"],
    [{ OTEL_TRACES_SAMPLER: "jaeger_remote" }, "not known"],
    [{ OTEL_TRACES_SAMPLER: "traceidratio", OTEL_TRACES_SAMPLER_ARG: "7" }, "not known"],
  ])("says what is wrong with %j", (env, reason) => {
    expect(readTraceSettings({ ...ENDPOINT, ...env })).toContain(reason);
  });

  test.each(["0", "-1", "soon", "Infinity"])("waits no wrong time: %s", (timeout) => {
    const { timeoutMs } = read({ OTEL_EXPORTER_OTLP_TIMEOUT: timeout });

    expect(timeoutMs).toBeGreaterThan(0);
    expect(timeoutMs).toBeLessThanOrEqual(60_000);
  });
});

describe("parseTraceparent", () => {
  const TRACE = "4bf92f3577b34da6a3ce929d0e0e4736";
  const SPAN = "00f067aa0ba902b7";

  test("reads what the specification gives as an example", () => {
    expect(parseTraceparent(`00-${TRACE}-${SPAN}-01`)).toEqual({
      traceId: TRACE,
      spanId: SPAN,
      isSampled: true,
    });
    expect(parseTraceparent(`00-${TRACE}-${SPAN}-00`)?.isSampled).toBe(false);
  });

  test("reads a later version with more behind it", () => {
    expect(parseTraceparent(`01-${TRACE}-${SPAN}-01-more`)?.spanId).toBe(SPAN);
  });

  test.each([
    null,
    "",
    "nonsense",
    `00-${TRACE}-${SPAN}`,
    `00-${TRACE}-${SPAN}-01-more`,
    `ff-${TRACE}-${SPAN}-01`,
    `00-${"0".repeat(32)}-${SPAN}-01`,
    `00-${TRACE}-${"0".repeat(16)}-01`,
    `00-${TRACE.toUpperCase()}-${SPAN}-01`,
    `00-${TRACE}${SPAN}-01`,
  ])("takes %j for none", (header) => {
    expect(parseTraceparent(header)).toBeUndefined();
  });
});
