import { describe, expect, test } from "bun:test";
import { waitingForRoom } from "../../src/runtime/waiting-for-room.ts";

describe("waitingForRoom", () => {
  test("tells the place in line as it is when it is read", () => {
    let queue = [{ id: 1 }, { id: 2 }, { id: 3 }];
    const line = { ticketId: 3, modelName: "m", queue: () => queue, loaded: ["a"] };
    const event = waitingForRoom(line);

    const before = event.position;
    queue = queue.slice(1);

    expect(before).toBe(3);
    expect(event.position).toBe(2);
    expect(JSON.parse(JSON.stringify(event))).toEqual({
      type: "progress",
      id: "m",
      phase: "waiting",
      done_bytes: null,
      total_bytes: null,
      waiting_for: "a",
      position: 2,
    });
  });

  test("has no place when it waits no more, and names nobody where nobody is", () => {
    const line = { ticketId: 3, modelName: "m", queue: () => [], loaded: [] };

    expect(Object.keys(JSON.parse(JSON.stringify(waitingForRoom(line))) as object)).toEqual([
      "type",
      "id",
      "phase",
      "done_bytes",
      "total_bytes",
    ]);
  });

  test("names three models, each once", () => {
    const loaded = ["a", "b", "a", "c", "d", "e"];
    const line = { ticketId: 3, modelName: "m", queue: () => [], loaded };

    expect(waitingForRoom(line).waiting_for).toBe("a, b, c and 2 more");
  });
});
