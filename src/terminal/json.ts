/** JSON on stdout: one document, two spaces, nothing else. */
import { openOutput, type Output } from "./output.ts";

/** Same key order as given, so that output is stable. */
export function renderJson(value: unknown): string {
  return `${JSON.stringify(value, null, 2) ?? "null"}\n`;
}

export async function printJson(value: unknown, output: Output = openOutput()): Promise<void> {
  await output.write(renderJson(value));
}
