/** Bytes of each element. */
const SIZES: Readonly<Record<string, number>> = { F32: 4, F16: 2, BF16: 2, I32: 4, U32: 4, U8: 1 };

export interface SampleTensor {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
}

/** A whole safetensors file; its tensors are zeros, one behind the other. */
export function encodeSafetensors(
  tensors: readonly SampleTensor[],
  metadata?: Readonly<Record<string, unknown>>,
): Buffer<ArrayBuffer> {
  const header: Record<string, unknown> = metadata === undefined ? {} : { __metadata__: metadata };
  let offset = 0;
  for (const { name, dtype, shape } of tensors) {
    const size = shape.reduce((product, length) => product * length, SIZES[dtype] ?? 1);
    header[name] = { dtype, shape, data_offsets: [offset, offset + size] };
    offset += size;
  }
  return encodeRaw(JSON.stringify(header), offset);
}

/** @param header its text, whatever it says @param dataBytes of zeros behind it */
export function encodeRaw(header: string, dataBytes: number): Buffer<ArrayBuffer> {
  const text = Buffer.from(header);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, Buffer.alloc(dataBytes)]);
}
