import { describe, expect, test } from "bun:test";
import {
  addTurn,
  changeSettings,
  clearTurns,
  createSession,
  setParameter,
  toRequest,
  undoTurn,
} from "../../src/chat/session.ts";
import { renderSession } from "../../src/chat/show.ts";

describe("session", () => {
  test("session: a request holds the system message, all turns and the question", () => {
    const session = changeSettings(createSession("pebble"), { system: "Be brief." });

    const request = toRequest(addTurn(session, { question: "a", answer: "b" }), "c");

    expect(request).toEqual({
      model: "pebble",
      messages: [
        { role: "system", content: "Be brief." },
        { role: "user", content: "a" },
        { role: "assistant", content: "b" },
        { role: "user", content: "c" },
      ],
    });
  });

  test("session: a parameter is set, sent and taken away", () => {
    const set = setParameter(createSession("m"), "temperature", 0);
    const unset = setParameter(set, "temperature", undefined);

    expect(toRequest(set, "q")).toHaveProperty("temperature", 0);
    expect(toRequest(unset, "q")).not.toHaveProperty("temperature");
  });

  test("session: keep-alive, context size and reasoning are sent only if set", () => {
    const session = changeSettings(createSession("m"), {
      keepAlive: "5m",
      contextSize: 4096,
      think: false,
    });

    expect(toRequest(session, "q")).toMatchObject({
      keep_alive: "5m",
      context_size: 4096,
      chat_template_kwargs: { enable_thinking: false },
    });
    expect(Object.keys(toRequest(createSession("m"), "q"))).toEqual(["model", "messages"]);
  });

  test("session: undo gives the last turn back, and nothing from an empty one", () => {
    const turn = { question: "a", answer: "b" };
    const session = addTurn(createSession("m"), turn);

    expect(undoTurn(session)).toEqual({ session: createSession("m"), undone: turn });
    expect(undoTurn(createSession("m"))).toBeUndefined();
    expect(clearTurns(session)).toEqual(createSession("m"));
  });

  test("show: control characters of a system message do not reach the terminal", () => {
    const session = changeSettings(createSession("m"), { system: "a\u001B[2Jb", contextSize: 512 });

    const text = renderSession(setParameter(session, "stop", ["x"]), undefined);

    expect(text).toContain("a[2Jb");
    expect(text).toMatch(/num_ctx +512\n/);
    expect(text).toMatch(/stop +\["x"\]\n/);
  });
});
