import { expect, test } from "bun:test";
import { describeIf, isWindows } from "../helpers/test-if.ts";
import { readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { eventually } from "../helpers/eventually.ts";
import { ChatTerminal } from "./chat-terminal.ts";

const PASTE = (text: string): string => `\u001B[200~${text}\u001B[201~`;
const CTRL_C = "\u0003";
const CTRL_D = "\u0004";

const user = (content: unknown): unknown => ({ role: "user", content });
const assistant = (content: string): unknown => ({ role: "assistant", content });

describeIf(!isWindows, "it needs a Unix terminal")("runChat at a terminal", () => {
  test("chat: remembers what was said and leaves with 0 on Ctrl+D", async () => {
    await using chat = await ChatTerminal.start();

    await chat.ask("first");
    await chat.ask("second");
    chat.type(CTRL_D);

    expect(await chat.process.exited).toBe(0);
    expect(await chat.lastMessages()).toEqual([
      user("first"),
      assistant("answer to <first>"),
      user("second"),
    ]);
  });

  test.each([["/bye"], ["/exit"]])("chat: %s leaves with 0", async (command) => {
    await using chat = await ChatTerminal.start();

    chat.type(`${command}\r`);

    expect(await chat.process.exited).toBe(0);
  });

  test("chat: five pasted lines are one message, and a pasted slash is text", async () => {
    await using chat = await ChatTerminal.start();
    const text = "/one\ntwo\nthree\nfour\nfive";

    chat.type(PASTE(text.replaceAll("\n", "\r")));
    chat.type("\r");
    await chat.see("five>");

    expect(await chat.requests("chat")).toHaveLength(1);
    expect(await chat.lastMessages()).toEqual([user(text)]);
  });

  test('chat: """ opens a message of several lines', async () => {
    await using chat = await ChatTerminal.start();

    chat.type('"""one\r');
    await chat.see("End the message");
    chat.type('/two\rthree"""\r');
    await chat.see("three>");

    expect(await chat.lastMessages()).toEqual([user("one\n/two\nthree")]);
  });

  test('chat: Ctrl+C within """ forgets the lines and the quotes', async () => {
    await using chat = await ChatTerminal.start();

    chat.type('"""one\r');
    await chat.see("End the message");
    chat.type(CTRL_C);
    await chat.see("Send a message");
    await chat.ask("plain");

    expect(await chat.lastMessages()).toEqual([user("plain")]);
  });

  test("chat: Ctrl+C at an empty prompt hints and stays", async () => {
    await using chat = await ChatTerminal.start();

    chat.type(CTRL_C);
    await chat.see("Press Ctrl+D or type /bye to leave.");
    await chat.see("Send a message");
    chat.type(`half a line${CTRL_C}`);
    await chat.see("Send a message");
    await chat.ask("still here");

    expect(await chat.lastMessages()).toEqual([user("still here")]);
  });

  test("chat: Ctrl+C stops an answer, and what came of it is remembered", async () => {
    await using chat = await ChatTerminal.start();

    chat.type("slow\r");
    await chat.see("part one ");
    chat.type(CTRL_C);
    await chat.see("Send a message");
    await chat.ask("next");

    expect(await chat.lastMessages()).toEqual([user("slow"), assistant("part one "), user("next")]);
  });

  test("chat: Ctrl+C before the first word leaves no trace in the conversation", async () => {
    await using chat = await ChatTerminal.start();

    chat.type("silent\r");
    await eventually(async () => (await chat.requests("chat")).length === 1);
    chat.type(CTRL_C);
    await chat.see("Send a message");
    await chat.ask("next");

    expect(await chat.lastMessages()).toEqual([user("next")]);
  });

  test("chat: what is typed while an answer comes is the next message", async () => {
    await using chat = await ChatTerminal.start();

    chat.type("slow\r");
    await chat.see("part one ");
    chat.type(`${CTRL_C}typed ahead\r`);
    await chat.see("answer to <typed ahead>");

    expect(await chat.requests("chat")).toHaveLength(2);
  });

  test("chat: what is typed before it has started is the first message", async () => {
    await using chat = await ChatTerminal.launch({ script: "read -r line; echo go; $CHAT" });

    chat.type("x\rearly\r");
    await chat.see("answer to <early>");

    expect(await chat.lastMessages()).toEqual([user("early")]);
  });

  test("chat: a failed turn is shown, dropped, and can be retried", async () => {
    await using chat = await ChatTerminal.start();

    chat.type("fail\r");
    await chat.see("error: cannot answer: the engine died");
    await chat.see("hint: Try again.");
    await chat.see("Send a message");
    chat.type("/retry\r");
    await chat.see("error: cannot answer: the engine died");
    await chat.see("Send a message");
    await chat.ask("fine");
    chat.type("/retry\r");
    await chat.see("answer to <fine>");

    expect(await chat.lastMessages()).toEqual([user("fine")]);
  });

  test("chat: /undo takes a turn back and /clear all of them", async () => {
    await using chat = await ChatTerminal.start();

    await chat.ask("one");
    await chat.ask("two");
    chat.type("/undo\r");
    await chat.see("Took the last message");
    await chat.see("Send a message");
    await chat.ask("three");
    const afterUndo = await chat.lastMessages();
    chat.type("/clear\r");
    await chat.see("Forgot the conversation.");
    await chat.see("Send a message");
    await chat.ask("four");

    expect(afterUndo).toEqual([user("one"), assistant("answer to <one>"), user("three")]);
    expect(await chat.lastMessages()).toEqual([user("four")]);
  });

  test("chat: settings go into the next request", async () => {
    await using chat = await ChatTerminal.start();

    for (const line of [
      "/set system Be   brief.",
      "/set parameter temperature 0.5",
      '/set parameter stop "\\n"',
      "/set reasoning off",
      "/set verbose",
      "/set parameter num_ctx 4096",
    ]) {
      chat.type(`${line}\r`);
      await chat.see("Send a message");
    }
    chat.type("hello\r");
    await chat.see("3 prompt tokens, 4 answer tokens (50.0/s)");

    expect((await chat.requests("chat")).at(-1)).toEqual({
      model: "pebble",
      messages: [{ role: "system", content: "Be   brief." }, user("hello")],
      temperature: 0.5,
      stop: ["\n"],
      chat_template_kwargs: { enable_thinking: false },
      context_size: 4096,
    });
    expect(await chat.requests("load")).toEqual([
      { model: "pebble" },
      { model: "pebble", context_size: 4096 },
    ]);
  });

  test("chat: a context size that does not fit is shown and given up", async () => {
    await using chat = await ChatTerminal.start();

    chat.type("/set num_ctx 666\r");
    await chat.see("error: cannot load `pebble`: too large");
    await chat.see("Send a message");
    await chat.ask("hello");

    expect((await chat.requests("load")).at(-1)).toEqual({ model: "pebble" });
    expect((await chat.requests("chat")).at(-1)).not.toHaveProperty("context_size");
  });

  test("chat: /save and /load keep a conversation over two runs", async () => {
    await using chat = await ChatTerminal.start({ script: "$CHAT; $CHAT" });

    await chat.ask("one");
    chat.type("/save my chat\r");
    await chat.see("Saved chat `my chat`.");
    chat.type("/bye\r");
    await chat.see("\u001B[?2004h");
    await chat.see("Send a message");
    chat.type("/load\r");
    await chat.see("my chat");
    chat.type("/load my chat\r");
    await chat.see("Loaded chat `my chat` with 1 message.");
    await chat.see("Send a message");
    await chat.ask("two");

    expect(await chat.lastMessages()).toEqual([
      user("one"),
      assistant("answer to <one>"),
      user("two"),
    ]);
    expect((await stat(join(chat.directory, "chats", "my chat.json"))).mode & 0o777).toBe(0o600);
  });

  test("chat: /show tells the model and its settings", async () => {
    await using chat = await ChatTerminal.start();

    chat.type("/show\r");
    await chat.see("messages");

    const shown = chat.screen.join("\n");
    expect(shown).toContain("sha256:abababababab");
    expect(shown).toContain("3.00MB");
  });

  test("chat: a file is included and an unknown command is not sent", async () => {
    await using chat = await ChatTerminal.start();
    await writeFile(join(chat.directory, "a b.txt"), "price $1 and $&");

    chat.type("/nonsense\r");
    await chat.see("Unknown command: /nonsense");
    chat.type('sum up @"a b.txt"!\r');
    await chat.see("answer to");

    expect(await chat.requests("chat")).toHaveLength(1);
    expect(await chat.lastMessages()).toEqual([user("sum up price $1 and $&!")]);
  });

  test("chat: reasoning is shown apart and is not part of the memory", async () => {
    await using chat = await ChatTerminal.start();

    await chat.ask("think");
    await chat.ask("next");

    const lines = chat.screen;
    const at = lines.indexOf("Thinking:");
    expect(lines.slice(at, at + 4)).toEqual(["Thinking:", "let me see", "", "answer to <think>"]);
    expect((await chat.lastMessages())[1]).toEqual(assistant("answer to <think>"));
  });

  test("chat: wide characters and emoji are edited as one", async () => {
    await using chat = await ChatTerminal.start();

    chat.type("日本👩‍👩‍👧é");
    await chat.see("é");
    chat.type("\u001B[D\u007F語\r");
    await chat.see("answer to <日本語é>");

    expect(chat.screen).toContain("> 日本語é");
  });

  test("chat: a line longer than the terminal is drawn once", async () => {
    await using chat = await ChatTerminal.start({ columns: 20 });

    for (const letter of "abcdefghijklmnopqrstuvwxyz0123") chat.type(letter);
    await chat.see("123");
    chat.type("\r");
    await chat.see("answer");

    expect(chat.screen.slice(0, 2)).toEqual(["> abcdefghijklmnopqr", "stuvwxyz0123"]);
  });

  test("chat: a window that changes its size is drawn anew", async () => {
    await using chat = await ChatTerminal.start({ columns: 60 });

    chat.type("some words");
    await chat.see("words");
    chat.resize(40);
    await chat.see("> some words");
    chat.type(" more\r");
    await chat.see("answer to <some words more>");
  });

  test("chat: Ctrl+L clears the screen and keeps the line", async () => {
    await using chat = await ChatTerminal.start();

    await chat.ask("first");
    chat.type("half\u000C");
    await chat.see("\u001B[2J");
    await chat.see("> half");

    expect(chat.screen).toEqual(["> half"]);
  });

  test("chat: history is offered again, in a private file", async () => {
    await using chat = await ChatTerminal.start({ script: "umask 000; $CHAT; $CHAT" });

    await chat.ask("remembered");
    chat.type(CTRL_D);
    await chat.see("\u001B[?2004h");
    await chat.see("Send a message");
    chat.type("\u001B[A\r");
    await chat.see("answer to <remembered>");

    const file = join(chat.directory, "history");
    expect((await stat(file)).mode & 0o777).toBe(0o600);
    expect(await readFile(file, "utf8")).toBe('"remembered"\n');
  });

  test.each([["TUG_NOHISTORY"], ["DOCKER_MODEL_NOHISTORY"]])(
    "chat: with %s nothing is written",
    async (name) => {
      await using chat = await ChatTerminal.start({ env: { [name]: "1" } });

      await chat.ask("secret");
      chat.type(CTRL_D);
      await chat.process.exited;

      expect(await Bun.file(join(chat.directory, "history")).exists()).toBe(false);
    },
  );

  test("chat: Ctrl+X writes the message in the person's editor", async () => {
    await using chat = await ChatTerminal.start({ env: { VISUAL: "sed -i s/cat/dog/" } });

    chat.type("my cat\u0018");
    await chat.see("my dog");
    chat.type(" barks\r");
    await chat.see("answer to <my dog barks>");

    expect(await chat.lastMessages()).toEqual([user("my dog barks")]);
  });

  test("chat: an editor that fails costs nothing of the message", async () => {
    await using chat = await ChatTerminal.start({ env: { VISUAL: "false" } });

    chat.type("my cat\u0018");
    await chat.see("error: cannot edit the message: `false` ended with 1");
    await chat.see("> my cat");
    chat.type("\r");
    await chat.see("answer to <my cat>");
  });

  test("chat: Ctrl+Z suspends, and fg goes on with the line", async () => {
    const script = "$CHAT; echo stopped; fg >/dev/null; echo over";
    await using chat = await ChatTerminal.start({ script });

    chat.type("half\u001A");
    await chat.see("stopped");
    await chat.see("> half");
    chat.type(" done\r");
    await chat.see("answer to <half done>");
    chat.type(CTRL_D);
    await chat.see("over");

    expect(await chat.lastMessages()).toEqual([user("half done")]);
  });

  test.each([
    ["Ctrl+D", CTRL_D, "rc=0"],
    ["SIGTERM", "", "rc=130"],
  ])("chat: %s leaves the terminal as it was", async (_, keys, status) => {
    const script =
      'stty -a >before; $CHAT & echo $! >pid; fg >/dev/null; echo "rc=$?"; stty -a >after';
    await using chat = await ChatTerminal.start({ script });

    chat.type(keys);
    const pid = Number(await readFile(join(chat.directory, "pid"), "utf8"));
    if (keys === "") process.kill(pid, "SIGTERM");
    await chat.see(status);
    await chat.process.exited;

    const before = await readFile(join(chat.directory, "before"), "utf8");
    expect(await readFile(join(chat.directory, "after"), "utf8")).toBe(before);
    expect(chat.output.lastIndexOf("\u001B[?2004l")).toBeGreaterThan(
      chat.output.lastIndexOf("\u001B[?2004h"),
    );
  });

  test("chat: a model that does not exist ends it with the reason", async () => {
    await using chat = await ChatTerminal.launch({ env: { CHAT_MODEL: "missing" } });

    await chat.see("thrown: cannot find `missing`");

    expect(await chat.process.exited).toBe(1);
  });

  test("chat: without a terminal it is a usage error", async () => {
    await using chat = await ChatTerminal.launch({ script: "$CHAT </dev/null" });

    await chat.see("thrown: cannot chat: not at a terminal");

    expect(await chat.process.exited).toBe(2);
  });

  test("chat: Markdown is rendered when asked for", async () => {
    await using chat = await ChatTerminal.start({ env: { CHAT_MARKDOWN: "1" } });

    chat.type("**bold**\r");
    await chat.see("answer to");
    await chat.see("Send a message");

    expect(chat.screen).toContain("answer to <bold>");
  });
});
