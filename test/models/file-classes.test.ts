import { describe, expect, test } from "bun:test";
import {
  classifyFile,
  type FileClass,
  isPickle,
  parseShard,
} from "../../src/models/file-classes.ts";

describe("classifyFile", () => {
  test.each<[string, FileClass]>([
    ["model.gguf", "gguf"],
    ["MODEL.GGUF", "gguf"],
    ["license.safetensors", "safetensors"],
    ["sub/pipe.dduf", "dduf"],
    ["chat_template.jinja", "template"],
    ["my_chat_template.txt", "template"],
    ["chat_template.json", "config"],
    ["license.jinja", "template"],
    ["LICENSE", "license"],
    ["LICENCE.md", "license"],
    ["COPYING", "license"],
    ["third-party-NOTICES.txt", "license"],
    ["README.md", "config"],
    ["merges.txt", "config"],
    ["config.json", "config"],
    ["tokenizer.model", "config"],
    ["my.tokenizer.model", "unknown"],
    ["de.vocab", "config"],
    ["pytorch_model.bin", "unknown"],
    ["modeling.py", "unknown"],
    ["license/readme", "unknown"],
  ])("file classes: %s is %s", (path, expected) => {
    expect(classifyFile(path)).toBe(expected);
  });

  test("file classes: pickles", () => {
    const names = ["a.bin", "a.pt", "a.pth", "a.CKPT", "a.safetensors", "bin", "a.json"];
    expect(names.filter(isPickle)).toEqual(["a.bin", "a.pt", "a.pth", "a.CKPT"]);
  });

  test("file classes: shards", () => {
    expect(parseShard("d/m-00002-of-00003.safetensors")).toEqual({
      set: "d/m-of-00003.safetensors",
      number: 2,
      count: 3,
    });
    expect(parseShard("m-2-of-3.gguf")).toBeUndefined();
    expect(parseShard("m-00002-of-00003.json")).toBeUndefined();
  });
});
