import { describe, test } from "bun:test";

type Body = () => void | Promise<unknown>;

/** `test` where the condition holds; elsewhere a skipped test whose name says why. */
export function testIf(
  condition: boolean,
  why: string,
): (name: string, body: Body, timeoutMs?: number) => void {
  return (name, body, timeoutMs) => {
    if (condition) test(name, body, timeoutMs);
    else test.skip(`${name} (skipped: ${why})`, body);
  };
}

/** `describe`, likewise. */
export function describeIf(
  condition: boolean,
  why: string,
): (name: string, body: () => void) => void {
  return (name, body) => {
    if (condition) describe(name, body);
    else describe.skip(`${name} (skipped: ${why})`, body);
  };
}

export const isRoot = process.getuid?.() === 0;
export const isWindows = process.platform === "win32";
export const isLinux = process.platform === "linux";
