import { describe, expect, test } from "bun:test";
import { tensorBytes, toOnnx } from "../../../backends/onnx/graph.ts";

const EMPTY = { inputs: {}, outputs: {}, constants: {}, nodes: [] };
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

describe("toOnnx", () => {
  test("graph: version, name and opset as onnx.proto numbers them", () => {
    // ir_version = 8, graph { name = graph }, opset_import { domain = "", version = 17 }
    expect(hex(toOnnx(EMPTY))).toBe("08083a071205677261706842040a001011");
  });

  test("graph: attributes are numbers, or lists of them", () => {
    const node = { op: "O", inputs: ["a"], outputs: ["b"] };
    const one = hex(toOnnx({ ...EMPTY, nodes: [{ ...node, attributes: { to: 300 } }] }));
    const list = hex(toOnnx({ ...EMPTY, nodes: [{ ...node, attributes: { axes: [1, 2] } }] }));

    // name, i = 300 as a varint of two bytes, type INT
    expect(one).toContain("0a02746f18ac02a00102");
    // name, ints = 1, ints = 2, type INTS
    expect(list).toContain("0a046178657340014002a00107");
  });

  test("graph: values lie in the tensor, or in the file that it names", () => {
    const tensor = { type: "int64", shape: [1], values: [5] } as const;
    const inside = hex(toOnnx({ ...EMPTY, constants: { t: tensor } }));
    const outside = hex(toOnnx({ ...EMPTY, constants: { t: { ...tensor, file: "f" } } }));

    expect(inside).toContain("4a080500000000000000");
    expect(outside).not.toContain("0500000000000000");
    // location = f, data_location EXTERNAL
    expect(outside).toContain("6a0d0a086c6f636174696f6e1201667001");
    expect(hex(tensorBytes(tensor))).toBe("0500000000000000");
    expect(hex(tensorBytes({ type: "float", shape: [1], values: [1] }))).toBe("0000803f");
  });
});
