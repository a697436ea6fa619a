import { describe, expect, test } from "bun:test";
import { describeIf, isWindows } from "../helpers/test-if.ts";
import { editExternally, editorCommand } from "../../src/chat/external-editor.ts";

describe("editorCommand", () => {
  test.each<[string, Record<string, string>, NodeJS.Platform, string]>([
    ["VISUAL first", { VISUAL: "code -w", EDITOR: "nano" }, "linux", "code -w"],
    ["then EDITOR", { VISUAL: "", EDITOR: "nano" }, "linux", "nano"],
    ["else vi", {}, "linux", "vi"],
    ["else notepad", {}, "win32", "notepad"],
  ])("external editor: %s", (...[, env, platform, command]) => {
    expect(editorCommand(env, platform)).toBe(command);
  });
});

describeIf(!isWindows, "it needs a Unix terminal")("editExternally", () => {
  test("external editor: a command with arguments and quotes is run by a shell", async () => {
    const env = { EDITOR: "sed -i 's/a cat/日本/'" };

    expect(await editExternally("see a cat\n\n", env)).toBe("see 日本");
  });

  test("external editor: one that is not there is told by name", async () => {
    const error = await editExternally("x", { EDITOR: "no-such-editor 2>/dev/null;exit 3;" }).catch(
      (thrown: unknown) => thrown,
    );

    expect(error).toMatchObject({ code: "internal", hint: expect.stringContaining("EDITOR") });
  });
});
