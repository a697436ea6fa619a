import { describe, expect, test } from "bun:test";
import { Exporter, type SendHttp, type Span } from "../../../src/server/watch/otlp.ts";
import { eventually } from "../../helpers/eventually.ts";

interface Received {
  readonly path: string;
  readonly headers: Headers;
  readonly body: { resourceSpans: { scopeSpans: { spans: Record<string, unknown>[] }[] }[] };
}

/** A collector, as far as an exporter can tell. */
function collector(answer: () => Response | Promise<Response> = () => Response.json({})) {
  const received: Received[] = [];
  const server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    async fetch(request) {
      const body = (await request.json()) as Received["body"];
      received.push({ path: new URL(request.url).pathname, headers: request.headers, body });
      return answer();
    },
  });
  return {
    received,
    url: `http://127.0.0.1:${server.port}/v1/traces`,
    [Symbol.asyncDispose]: () => server.stop(true),
  };
}

const send: SendHttp = (url, { body, ...init }) =>
  fetch(url, { ...init, body: body(), keepalive: false });

function exporter(url: string, options: { delayMs?: number; timeoutMs?: number } = {}): Exporter {
  const { delayMs = 1, timeoutMs = 1000 } = options;
  const settings = { url, headers: { "x-key": "k" }, resource: { "service.name": "t" }, timeoutMs };
  return new Exporter({ settings, version: "1.2.3", send, delayMs });
}

function span(name = "request"): Span {
  return {
    traceId: "4bf92f3577b34da6a3ce929d0e0e4736",
    spanId: "00f067aa0ba902b7",
    parentSpanId: "",
    traceState: "",
    name,
    kind: 2,
    startMs: 1_800_000_000_000.5,
    endMs: 1_800_000_001_000,
    attributes: { text: "a", whole: 3, broken: 0.5, list: ["x", "y"] },
    events: [{ name: "first_token", atMs: 1_800_000_000_500 }],
    error: "worker_failed",
  };
}

const spansOf = ({ body }: Received) => body.resourceSpans[0]?.scopeSpans[0]?.spans ?? [];

describe("Exporter", () => {
  test("sends a batch in the collector's JSON", async () => {
    await using it = collector();
    const spans = exporter(it.url);

    spans.add([span(), span("queue")]);
    await eventually(() => it.received.length > 0);
    const [first] = it.received as [Received];

    expect(first.path).toBe("/v1/traces");
    expect(first.headers.get("content-type")).toBe("application/json");
    expect(first.headers.get("x-key")).toBe("k");
    expect(first.body).toMatchObject({
      resourceSpans: [
        {
          resource: {
            attributes: [
              { key: "service.name", value: { stringValue: "t" } },
              { key: "service.version", value: { stringValue: "1.2.3" } },
            ],
          },
        },
      ],
    });
    expect(spansOf(first)[0]).toEqual({
      traceId: "4bf92f3577b34da6a3ce929d0e0e4736",
      spanId: "00f067aa0ba902b7",
      name: "request",
      kind: 2,
      startTimeUnixNano: "1800000000000500000",
      endTimeUnixNano: "1800000001000000000",
      attributes: [
        { key: "text", value: { stringValue: "a" } },
        { key: "whole", value: { intValue: "3" } },
        { key: "broken", value: { doubleValue: 0.5 } },
        {
          key: "list",
          value: { arrayValue: { values: [{ stringValue: "x" }, { stringValue: "y" }] } },
        },
        { key: "error.type", value: { stringValue: "worker_failed" } },
      ],
      events: [{ name: "first_token", timeUnixNano: "1800000000500000000" }],
      status: { code: 2, message: "worker_failed" },
    });
  });

  test("collects what comes close together, and sends what is left when it closes", async () => {
    await using it = collector();
    const spans = exporter(it.url, { delayMs: 60_000 });

    spans.add([span()]);
    spans.add([span()]);
    await spans.close();

    expect(it.received.map((one) => spansOf(one).length)).toEqual([2]);
    expect(spans.dropped).toBe(0);
  });

  test("keeps 512 spans and counts the others", async () => {
    await using it = collector();
    const spans = exporter(it.url, { delayMs: 60_000 });

    for (let index = 0; index < 300; index += 1) spans.add([span(), span()]);
    await spans.close();

    expect(spans.dropped).toBe(88);
    expect(it.received.map((one) => spansOf(one).length)).toEqual([512]);
  });

  test.each([
    ["refuses", () => new Response(null, { status: 503 })],
    ["redirects", () => Response.redirect("http://127.0.0.1:1/", 302)],
  ])("drops and counts what a collector %s, and goes on", async (_, answer) => {
    await using it = collector(answer);
    const spans = exporter(it.url);

    spans.add([span(), span()]);
    await eventually(() => spans.dropped === 2);
    spans.add([span()]);
    await eventually(() => spans.dropped === 3);

    expect(it.received).toHaveLength(2);
  });

  test("drops and counts where nothing listens", async () => {
    const spans = exporter("http://127.0.0.1:1/v1/traces");

    spans.add([span()]);
    await spans.close();

    expect(spans.dropped).toBe(1);
  });

  test("gives up a collector that does not answer", async () => {
    await using it = collector(() => new Promise<Response>(() => undefined));
    const spans = exporter(it.url, { timeoutMs: 20 });

    spans.add([span()]);
    await eventually(() => spans.dropped === 1);

    expect(it.received).toHaveLength(1);
  });
});
