import { describe, expect, test } from "bun:test";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { listChats, loadChat, saveChat } from "../../src/chat/saved-chats.ts";
import { addTurn, createSession, setParameter, type Session } from "../../src/chat/session.ts";
import { tempDir } from "../helpers/temp-dir.ts";

function session(): Session {
  const image = { type: "image_url", image_url: { url: "data:image/png;base64,AA==" } } as const;
  const started = setParameter(createSession("m"), "stop", ["x"]);
  return addTurn(started, { question: [image, { type: "text", text: "q" }], answer: "a" });
}

describe("saved chats", () => {
  test("saved chats: what was saved is loaded, images and parameters included", async () => {
    await using directory = await tempDir();
    const chats = join(directory.path, "chats");

    await saveChat(chats, "b é", session());
    await saveChat(chats, "a", session());

    expect(await loadChat(chats, "b é")).toEqual({
      model: "m",
      system: undefined,
      parameters: { stop: ["x"] },
      turns: session().turns,
    });
    expect(await listChats(chats)).toEqual(["a", "b é"]);
    expect(await readdir(chats)).toHaveLength(2);
  });

  test("saved chats: saving under a name that is taken keeps the one before", async () => {
    await using directory = await tempDir();
    await saveChat(directory.path, "a", session());

    const kept = await saveChat(directory.path, "a", createSession("other"));

    expect((await loadChat(directory.path, "a")).model).toBe("other");
    expect(JSON.parse(await readFile(kept ?? "", "utf8"))).toMatchObject({ model: "m" });
    expect(await listChats(directory.path)).toEqual(["a"]);
  });

  test("saved chats: an unknown name is not found", async () => {
    await using directory = await tempDir();

    expect(await loadChat(directory.path, "none").catch((error: unknown) => error)).toMatchObject({
      code: "not_found",
    });
    expect(await listChats(join(directory.path, "none"))).toEqual([]);
  });

  test.each([
    ["no JSON", "{"],
    ["another version", '{"version":2}'],
    ["no model", '{"version":1,"system":null,"parameters":{},"turns":[]}'],
    [
      "a wrong parameter",
      '{"version":1,"model":"m","system":null,"parameters":{"a":{}},"turns":[]}',
    ],
    [
      "a wrong turn",
      '{"version":1,"model":"m","system":null,"parameters":{},"turns":[{"answer":"a"}]}',
    ],
    [
      "a wrong part",
      '{"version":1,"model":"m","system":null,"parameters":{},"turns":[{"question":[{"type":"x"}],"answer":"a"}]}',
    ],
  ])("saved chats: %s is a damaged file", async (_, text) => {
    await using directory = await tempDir();
    await writeFile(join(directory.path, "x.json"), text);

    expect(await loadChat(directory.path, "x").catch((error: unknown) => error)).toMatchObject({
      code: "invalid_request",
    });
  });

  test("saved chats: a place that cannot be written is told", async () => {
    await using directory = await tempDir();
    const file = join(directory.path, "file");
    await writeFile(file, "");

    expect(await saveChat(file, "x", session()).catch((error: unknown) => error)).toMatchObject({
      code: "internal",
    });
  });
});
