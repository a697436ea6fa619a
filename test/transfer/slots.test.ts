import { describe, expect, test } from "bun:test";
import { Slots } from "../../src/transfer/slots.ts";
import { failureOf } from "../store/failure-of.ts";

const never = new AbortController().signal;

describe("Slots", () => {
  test("slots: there are no more than there are, and who asked first gets the next", async () => {
    const slots = new Slots(1);
    const first = await slots.take(never);
    const order: string[] = [];
    const take = async (name: string): Promise<void> => {
      const slot = await slots.take(never);
      order.push(name);
      slot[Symbol.dispose]();
    };
    const others = [take("b"), take("c"), take("d")];

    expect([slots.tryTake(), slots.isContended]).toEqual([undefined, true]);
    first[Symbol.dispose]();
    first[Symbol.dispose]();
    await Promise.all(others);

    expect(order).toEqual(["b", "c", "d"]);
    const again = slots.tryTake();
    expect([again !== undefined, slots.tryTake()]).toEqual([true, undefined]);
  });

  test("slots: who gives up waiting takes none away from others", async () => {
    const slots = new Slots(1);
    const held = await slots.take(never);
    const leaving = new AbortController();
    const left = failureOf(slots.take(leaving.signal));
    const waiting = slots.take(never);

    leaving.abort();
    held[Symbol.dispose]();

    expect((await left).name).toBe("AbortError");
    expect(await waiting).toBeDefined();
    expect(slots.isContended).toBe(false);
  });

  test("slots: one that is handed to somebody who leaves at that moment goes to the next", async () => {
    const slots = new Slots(1);
    const held = await slots.take(never);
    const leaving = new AbortController();
    const left = failureOf(slots.take(leaving.signal));
    const waiting = slots.take(never);

    held[Symbol.dispose]();
    leaving.abort();

    expect((await left).name).toBe("AbortError");
    expect(await waiting).toBeDefined();
  });
});
