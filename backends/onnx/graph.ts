/**
 * Writes ONNX files: of graphs that are made here, to try an engine with.
 *
 * @see https://github.com/onnx/onnx/blob/main/onnx/onnx.proto (numbers of fields and of types)
 */

export interface Tensor {
  readonly type: "float" | "int64";
  readonly shape: readonly number[];
  readonly values: readonly number[];
  /** The file beside the model that holds the values, which are its only ones. */
  readonly file?: string | undefined;
}

export interface Node {
  readonly op: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes?: Readonly<Record<string, number | readonly number[]>> | undefined;
}

export interface Value {
  readonly type: Tensor["type"];
  /** Of an unknown size the name. */
  readonly shape: readonly (number | string)[];
}

export interface Graph {
  readonly inputs: Readonly<Record<string, Value>>;
  readonly outputs: Readonly<Record<string, Value>>;
  readonly constants: Readonly<Record<string, Tensor>>;
  readonly nodes: readonly Node[];
}

/** Of opset 17. */
export function toOnnx(graph: Graph): Uint8Array {
  const body = message(
    ...graph.nodes.map((node) => bytes(1, encodeNode(node))),
    bytes(2, "graph"),
    ...Object.entries(graph.constants).map(([name, tensor]) => bytes(5, encode(name, tensor))),
    ...Object.entries(graph.inputs).map(([name, value]) => bytes(11, encodeValue(name, value))),
    ...Object.entries(graph.outputs).map(([name, value]) => bytes(12, encodeValue(name, value))),
  );
  const opset = message(bytes(1, ""), integer(2, OPSET));
  return message(integer(1, IR_VERSION), bytes(7, body), bytes(8, opset));
}

/** The values of a tensor as they lie in a file, little-endian. */
export function tensorBytes({ type, values }: Tensor): Uint8Array {
  const array = type === "float" ? new Float32Array(values) : BigInt64Array.from(values, BigInt);
  return new Uint8Array(array.buffer);
}

// --- internal ---

const IR_VERSION = 8;
const OPSET = 17;
const TYPES = { float: 1, int64: 7 } as const;
const ATTRIBUTES = { int: 2, ints: 7 } as const;
const IN_ANOTHER_FILE = 1;

function encodeNode({ op, inputs, outputs, attributes = {} }: Node): Uint8Array {
  return message(
    ...inputs.map((name) => bytes(1, name)),
    ...outputs.map((name) => bytes(2, name)),
    bytes(4, op),
    ...Object.entries(attributes).map(([name, value]) => bytes(5, encodeAttribute(name, value))),
  );
}

function encodeAttribute(name: string, value: number | readonly number[]): Uint8Array {
  const isOne = typeof value === "number";
  const values = isOne ? [integer(3, value)] : value.map((one) => integer(8, one));
  return message(bytes(1, name), ...values, integer(20, ATTRIBUTES[isOne ? "int" : "ints"]));
}

function encode(name: string, tensor: Tensor): Uint8Array {
  const { type, shape, file } = tensor;
  const head = [...shape.map((size) => integer(1, size)), integer(2, TYPES[type]), bytes(8, name)];
  if (file === undefined) return message(...head, bytes(9, tensorBytes(tensor)));
  const place = message(bytes(1, "location"), bytes(2, file));
  return message(...head, bytes(13, place), integer(14, IN_ANOTHER_FILE));
}

function encodeValue(name: string, { type, shape }: Value): Uint8Array {
  const sizes = shape.map((size) =>
    bytes(1, message(typeof size === "number" ? integer(1, size) : bytes(2, size))),
  );
  const tensor = message(integer(1, TYPES[type]), bytes(2, message(...sizes)));
  return message(bytes(1, name), bytes(2, message(bytes(1, tensor))));
}

function message(...fields: readonly Uint8Array[]): Uint8Array {
  return Buffer.concat(fields);
}

function integer(field: number, value: number): Uint8Array {
  return Buffer.concat([varint(field * 8), varint(value)]);
}

function bytes(field: number, value: string | Uint8Array): Uint8Array {
  const data = Buffer.from(value);
  return Buffer.concat([varint(field * 8 + 2), varint(data.byteLength), data]);
}

/** @param value whole, not negative */
function varint(value: number): Uint8Array {
  const all: number[] = [];
  let rest = value;
  while (rest > 127) {
    all.push((rest % 128) + 128);
    rest = Math.floor(rest / 128);
  }
  return Uint8Array.from([...all, rest]);
}
