import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { describeIf, isWindows, testIf } from "../helpers/test-if.ts";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { tugBinary } from "../helpers/binary.ts";
import { engineSlots } from "../helpers/engine-socket.ts";
import { eventually } from "../helpers/eventually.ts";
import { LONG_REQUEST, longStory } from "../helpers/pebble.ts";
import { CAN_LIST_PROCESSES, enginesOf } from "../helpers/processes.ts";
import { Pty } from "../helpers/pty.ts";
import { type TugHome, tugHome } from "../helpers/tug-home.ts";

setDefaultTimeout(60_000);

interface SavedChat {
  readonly turns: readonly { readonly question: unknown; readonly answer: string }[];
}

const NOTE = CAN_LIST_PROCESSES ? "" : " (skipped: processes cannot be listed here)";

describeIf(!isWindows, "it needs a Unix terminal")("the chat", () => {
  let home: TugHome;
  beforeAll(async () => {
    home = await tugHome({ engine: true });
    const { exitCode, stderr } = await home.tug(["run", "pebble", "hi", "--keep-alive", "-1"]);
    if (exitCode !== 0) throw new Error(`the built-in model does not run:\n${stderr}`);
  }, 240_000);
  afterAll(async () => {
    await home[Symbol.asyncDispose]();
  });

  test("remembers what was said, and /bye leaves with 0", async () => {
    await using pty = await startChat(home);

    pty.submit("My name is Alice.");
    await pty.waitFor("Nice to meet you, Alice!");
    pty.submit("What is my name?");
    await pty.waitFor("Your name is Alice.");
    pty.submit("/bye");

    expect(await pty.exited()).toBe(0);
  });

  test("/clear forgets it", async () => {
    await using pty = await startChat(home);
    pty.submit("My name is Alice.");
    await pty.waitFor("Nice to meet you, Alice!");

    pty.submit("/clear");
    pty.submit("What is my name?");

    await pty.waitFor("I do not know your name yet.");
  });

  test("/set system holds from then on", async () => {
    await using pty = await startChat(home);

    pty.submit("/set system You are a pirate.");
    pty.submit("What is the capital of Spain?");

    await pty.waitFor("Arr! The capital of Spain is Madrid.");
  });

  test('lines between """ are one message', async () => {
    await using pty = await startChat(home);

    pty.submit('"""Context: The key is under the chair. Ann likes soup.');
    pty.submit('Question: Where is the key?"""');
    // Its own echo says that it is under the chair, too.
    await pty.waitFor("is the key?");
    await pty.waitFor("under the chair");
    const saved = await save(pty, { home, name: "quoted" });

    expect(saved.turns.map(({ question }) => question)).toEqual([
      "Context: The key is under the chair. Ann likes soup.\nQuestion: Where is the key?",
    ]);
  });

  test("a paste of five lines is one message, and none of them a command", async () => {
    await using pty = await startChat(home);
    const lines = ["/bye", "two", "three", "four", "What is the capital of France?"];

    pty.paste(lines.join("\n"));
    await pty.waitFor("capital of France?");
    pty.submit("");
    await eventually(async () => (await turnsOf(pty, home)).length > 0);

    const [first, ...more] = await turnsOf(pty, home);
    expect(first?.question).toBe(lines.join("\n"));
    expect(more).toEqual([]);
  });

  testIf(CAN_LIST_PROCESSES, "processes cannot be listed here")(
    `Ctrl-C in the middle of an answer stops it, and the chat goes on${NOTE}`,
    async () => {
      const story = await longStory();
      await using pty = await startChat(home);
      const [engine] = await enginesOf(home.path);

      pty.submit(LONG_REQUEST);
      // The engine is held in mid-answer: it says nothing more until the answer has been stopped.
      await eventually(() => isDecoding(home));
      process.kill(engine?.pid ?? 0, "SIGSTOP");
      pty.write("\u0003");
      await pty.waitFor("> ");
      process.kill(engine?.pid ?? 0, "SIGCONT");
      pty.submit("What is the capital of Japan?");
      await pty.waitFor("Tokyo");

      expect(story.length).toBeGreaterThan(500);
      expect(pty.transcript.replaceAll(/\s+/g, " ")).not.toContain(story.slice(-40));
    },
  );

  test("Ctrl-C at the prompt drops what was typed, and on an empty line says how to leave", async () => {
    await using pty = await startChat(home);

    pty.write("What is the capital of");
    await pty.waitFor("capital of");
    pty.write("\u0003\u0003");
    await pty.waitFor("/bye");
    pty.submit("What is the capital of Peru?");

    await pty.waitFor("Lima");
  });

  test("Ctrl-D on an empty line leaves with 0", async () => {
    await using pty = await startChat(home);

    pty.write("\u0004");

    expect(await pty.exited()).toBe(0);
  });

  test("what was typed is there in the next chat, in a file for the owner only", async () => {
    await using first = await startChat(home);
    first.submit("What color is the grass?");
    await first.waitFor(/green/i);
    first.submit("/bye");
    await first.exited();

    await using second = await startChat(home);
    second.write("\u001B[A\u001B[A");
    await second.waitFor("What color is the grass?");

    const { mode } = await Bun.file(join(home.path, "history")).stat();
    expect(mode & 0o777).toBe(0o600);
    expect(await readFile(join(home.path, "history"), "utf8")).toContain(
      "What color is the grass?",
    );
  });

  test("a failed turn does not end it", async () => {
    await using pty = await startChat(home);
    const [engine] = await enginesOf(home.path);

    process.kill(engine?.pid ?? 0, "SIGKILL");
    pty.submit("What is the capital of Italy?");
    await pty.waitFor(/Rome|error/i);
    await pty.waitFor("> ");
    pty.submit("What is the capital of Japan?");

    await pty.waitFor("Tokyo");
  });
});

async function startChat(home: TugHome): Promise<Pty> {
  const command = [await tugBinary(), "run", "pebble", "--temperature", "0", "--keep-alive", "-1"];
  const pty = Pty.start(command, { env: home.env, columns: 120 });
  await pty.waitFor("> ");
  return pty;
}

/** Saves the conversation under `name` and reads it back. */
async function save(pty: Pty, { home, name }: { home: TugHome; name: string }): Promise<SavedChat> {
  pty.submit(`/save ${name}`);
  const file = join(home.path, "chats", `${name}.json`);
  await eventually(() => existsSync(file));
  return JSON.parse(await readFile(file, "utf8")) as SavedChat;
}

let saves = 0;

async function turnsOf(pty: Pty, home: TugHome): Promise<SavedChat["turns"]> {
  saves += 1;
  return (await save(pty, { home, name: `turns-${saves}` })).turns;
}

async function isDecoding(home: TugHome): Promise<boolean> {
  const slots = await engineSlots(home.path);
  return slots.some((slot) => slot.is_processing && (slot.next_token?.[0]?.n_decoded ?? 0) > 5);
}
