import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { type Span, SpanPlanner } from "../../src/transfer/spans.ts";

const MIB = 1024 * 1024;
const LIMITS = { longestSpanBytes: 64 * MIB, shortestSpanBytes: 4 * MIB };

function planner(size: number): SpanPlanner {
  const made = new SpanPlanner(LIMITS);
  made.add({ start: 0, end: size });
  return made;
}

function take(from: SpanPlanner, connections: number): Span {
  const span = from.take(connections);
  if (span === undefined) throw new Error("there was nothing to take");
  return span;
}

/** Tells the planner how fast each span is, in MiB a second. */
function observe(of: SpanPlanner, rates: readonly [Span, number][]): void {
  for (let time = 0; time < 20; time += 1)
    of.observe(new Map(rates.map(([span, rate]) => [span, rate * MIB])), 1);
}

describe("SpanPlanner", () => {
  test("spans: one connection gets everything in one stretch", () => {
    expect(planner(1000 * MIB).take(1)).toMatchObject({ start: 0, end: 1000 * MIB });
  });

  test("spans: several get long spans one behind the other, and shorter ones near the end", () => {
    const made = planner(1000 * MIB);
    const lengths: number[] = [];
    for (let position = 0; position < 1000 * MIB;) {
      const span = take(made, 4);
      expect(span.start).toBe(position);
      lengths.push(span.end - span.start);
      position = span.end;
      span.position = span.end;
    }

    expect(lengths[0]).toBe(64 * MIB);
    expect(lengths).toEqual(lengths.toSorted((a, b) => b - a));
    expect(lengths.at(-2)).toBe(4 * MIB);
  });

  test("spans: when others come, the first gives away all but a long span", () => {
    const made = planner(1000 * MIB);
    const first = take(made, 1);
    first.position = 10 * MIB;

    made.share();

    expect(first.end).toBe(74 * MIB);
    expect(take(made, 2).start).toBe(74 * MIB);
  });

  test("spans: what a connection leaves is handed out first", () => {
    const made = planner(1000 * MIB);
    const [first, second] = [take(made, 2), take(made, 2)];
    first.position = 30 * MIB;
    made.release(first);

    expect(take(made, 2)).toMatchObject({ start: 30 * MIB, end: 64 * MIB });
    expect(second.start).toBe(64 * MIB);
  });

  test("spans: an idle connection takes over so much that both are done at once", () => {
    const made = planner(60 * MIB);
    const [slow, fast] = [take(made, 1), undefined];
    expect(fast).toBeUndefined();
    observe(made, [[slow, 10]]);

    expect(take(made, 2)).toMatchObject({ start: 30 * MIB, end: 60 * MIB });
    expect(slow.end).toBe(30 * MIB);
  });

  test("spans: a laggard loses all that it has left, and is told", () => {
    const made = planner(8 * MIB);
    const [fast, slow] = [take(made, 2), take(made, 2)];
    let isCut = false;
    slow.onCut = () => (isCut = true);
    slow.position += MIB;
    observe(made, [
      [fast, 50],
      [slow, 0],
    ]);
    fast.position = fast.end;

    expect(take(made, 2)).toMatchObject({ start: 5 * MIB, end: 8 * MIB });
    expect([isCut, slow.end]).toEqual([true, slow.position]);
  });

  test("spans: a connection that has just begun is no laggard yet", () => {
    const made = planner(128 * MIB);
    const [fast, young] = [take(made, 2), take(made, 2)];
    observe(made, [[fast, 50]]);
    young.looks = 0;
    made.observe(new Map([[young, 1]]), 1);

    made.cutLaggards();

    expect(young.end).toBeGreaterThan(young.position);
  });

  test("spans: a laggard amid the blob is cut, and its range is handed out first", () => {
    const made = planner(1000 * MIB);
    const [slow, fast] = [take(made, 2), take(made, 2)];
    slow.position = MIB;
    observe(made, [
      [slow, 1],
      [fast, 50],
    ]);

    made.cutLaggards();

    expect([slow.end, fast.end]).toEqual([MIB, 128 * MIB]);
    expect(take(made, 2)).toMatchObject({ start: MIB, end: 64 * MIB });
  });

  test("spans: what is done soon is left alone", () => {
    const made = planner(6 * MIB);
    const span = take(made, 1);
    observe(made, [[span, 20]]);

    expect(made.hasWork).toBe(false);
    expect(made.take(2)).toBeUndefined();
  });

  test("spans: bytes are not taken from slow connections for ever", () => {
    const made = planner(8 * MIB);
    let span = take(made, 1);
    observe(made, [[span, 20]]);
    let takeovers = 0;
    for (; takeovers < 100; takeovers += 1) {
      observe(made, [[span, 0]]);
      const next = made.take(2);
      if (next === undefined) break;
      made.release(span);
      span = next;
    }

    expect(takeovers).toBeLessThanOrEqual(3);
  });

  test("spans: whatever happens, each byte is fetched once, and all are fetched", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 300 * MIB }),
        fc.array(
          fc.record({
            kind: fc.constantFrom("take", "advance", "release", "share", "observe", "cut"),
            which: fc.nat({ max: 7 }),
            amount: fc.integer({ min: 1, max: 40 * MIB }),
          }),
          { maxLength: 200 },
        ),
        (size, steps) => {
          const made = planner(size);
          const running: Span[] = [];
          const fetched: [start: number, end: number][] = [];
          const advance = (span: Span, amount: number): void => {
            const to = Math.min(span.position + amount, span.end);
            if (to > span.position) fetched.push([span.position, to]);
            span.position = to;
          };
          for (const { kind, which, amount } of steps) {
            const span = running[which % Math.max(running.length, 1)];
            if (kind === "take" && running.length < 8) {
              const taken = made.take(running.length + 1);
              if (taken !== undefined) running.push(taken);
            } else if (kind === "share") made.share();
            else if (kind === "cut") made.cutLaggards();
            else if (kind === "observe")
              made.observe(new Map(running.map((one, index) => [one, index * amount])), 1);
            else if (span !== undefined && kind === "advance") advance(span, amount);
            else if (span !== undefined && kind === "release") {
              made.release(span);
              running.splice(running.indexOf(span), 1);
            }
          }
          for (const span of running) made.release(span);
          for (let rest = made.take(1); rest !== undefined; rest = made.take(1)) {
            advance(rest, size);
            made.release(rest);
          }
          let position = 0;
          for (const [start, end] of fetched.toSorted((a, b) => a[0] - b[0])) {
            expect(start).toBe(position);
            position = end;
          }
          expect(position).toBe(size);
        },
      ),
      { numRuns: 200 },
    );
  });
});
