import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { renderHelp } from "../../src/chat/help.ts";
import {
  COMMANDS,
  completeCommand,
  parseInput,
  type Action,
} from "../../src/chat/slash-commands.ts";

const parse = (text: string): Action => parseInput(text, { isLiteral: false });

describe("parseInput", () => {
  test.each<[string, Action]>([
    ["hello /bye", { kind: "message", text: "hello /bye" }],
    ["/tmp/cat.png what is this?", { kind: "message", text: "/tmp/cat.png what is this?" }],
    ["/bye", { kind: "exit" }],
    ["  /exit  ", { kind: "exit" }],
    ["/?", { kind: "help", topic: "general" }],
    ["/help shortcuts", { kind: "help", topic: "shortcuts" }],
    ["/? file", { kind: "help", topic: "files" }],
    ["/help nothing", { kind: "help", topic: "general" }],
    ["/set", { kind: "help", topic: "set" }],
    ["/clear", { kind: "clear" }],
    ["/show", { kind: "show" }],
    ["/retry", { kind: "retry" }],
    ["/undo", { kind: "undo" }],
    ["/save a chat", { kind: "save", name: "a chat" }],
    ["/load", { kind: "load", name: undefined }],
    ["/load Gespräch-1", { kind: "load", name: "Gespräch-1" }],
    ["/set system  Be  brief ", { kind: "set-system", text: "Be  brief" }],
    ["/set system", { kind: "set-system", text: "" }],
    ['/set system """a\nb"""', { kind: "set-system", text: "a\nb" }],
    ['/set system "quoted"', { kind: "set-system", text: "quoted" }],
    ["/set parameter temperature .5", { kind: "set-parameter", name: "temperature", value: 0.5 }],
    ["/set parameter seed -1", { kind: "set-parameter", name: "seed", value: -1 }],
    ["/set parameter top_k", { kind: "set-parameter", name: "top_k", value: undefined }],
    ["/set parameter top_p default", { kind: "set-parameter", name: "top_p", value: undefined }],
    [
      '/set parameter stop END "\\n\\n"',
      { kind: "set-parameter", name: "stop", value: ["END", "\n\n"] },
    ],
    ["/set parameter num_ctx 4096", { kind: "set-context", tokens: 4096 }],
    ["/set num_ctx 4096", { kind: "set-context", tokens: 4096 }],
    ["/set verbose", { kind: "set-verbose", verbose: true }],
    ["/set quiet", { kind: "set-verbose", verbose: false }],
    ["/set reasoning off", { kind: "set-reasoning", reasoning: "off" }],
    ["/set reasoning hide", { kind: "set-reasoning", reasoning: "hide" }],
  ])("slash: %j", (text, action) => {
    expect(parse(text)).toEqual(action);
  });

  test.each([
    ["/Bye", "Unknown command: /Bye"],
    ["/bye now", "/bye takes nothing"],
    ["/save", "/save needs a name"],
    ["/save ../x", "is not a name"],
    ["/load .hidden", "is not a name"],
    ["/set nonsense 1", "Unknown /set option: nonsense"],
    ["/set verbose 2", "is not understood"],
    ["/set reasoning maybe", "on, off, show or hide"],
    ["/set num_ctx 0", "above 0"],
    ["/set num_ctx 99999999999", "above 0"],
    ["/set parameter", "Unknown parameter: (none)"],
    ["/set parameter constructor 1", "Unknown parameter: constructor"],
    ["/set parameter temperature hot", "use a number from 0 to 10"],
    ["/set parameter top_p 1.5", "from 0 to 1"],
    ["/set parameter top_k 1.5", "use a whole number"],
    ["/set parameter temperature 0x1", "is not a value"],
  ])("slash: %j is a problem", (text, part) => {
    const action = parse(text);

    expect(action.kind).toBe("problem");
    expect((action as { message: string }).message).toContain(part);
  });

  test("slash: a literal line is a message whatever it begins with", () => {
    expect(parseInput("/bye", { isLiteral: true })).toEqual({ kind: "message", text: "/bye" });
  });

  test("slash: any line is read", () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        expect(parse(`/set parameter ${text}`).kind).toMatch(/^(problem|set-)/);
      }),
    );
  });
});

describe("completeCommand", () => {
  test.each([
    ["/re", "/retry"],
    ["/s", undefined],
    ["/sh", "/show"],
    ["/bye x", undefined],
    ["hello", undefined],
  ])("slash: %j is completed to %j", (text, expected) => {
    expect(completeCommand(text)).toBe(expected);
  });
});

describe("renderHelp", () => {
  test("help: every command is in the general help", () => {
    const help = renderHelp("general");

    expect(COMMANDS.filter(({ usage }) => !help.includes(usage))).toEqual([]);
  });

  test("help: parameters are in the help for /set", () => {
    expect(renderHelp("set")).toContain("repeat_penalty");
  });
});
