/** Sums of a JUnit report of `bun test`. Pure. */

export interface Counts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

export const NO_COUNTS: Counts = { passed: 0, failed: 0, skipped: 0 };

/** Counts of the root element; undefined if the text is no such report, as when the run was cut off. */
export function parseCounts(xml: string): Counts | undefined {
  const root = /<testsuites\b[^>]*>/.exec(xml)?.[0];
  if (root === undefined || !/<\/testsuites>\s*$/.test(xml)) return undefined;
  const tests = attribute(root, "tests");
  if (tests === undefined) return undefined;
  const failed = (attribute(root, "failures") ?? 0) + (attribute(root, "errors") ?? 0);
  const skipped = attribute(root, "skipped") ?? 0;
  return { passed: tests - failed - skipped, failed, skipped };
}

/** `file > name` of every test case that failed. */
export function failedNames(xml: string): string[] {
  const cases = xml.matchAll(/<testcase\b([^>]*[^/])>(.*?)<\/testcase>/gs);
  return [...cases]
    .filter(([, , body]) => /<(failure|error)\b/.test(body ?? ""))
    .map(([, head]) => `${text(head, "file")} > ${text(head, "name")}`);
}

export function add(a: Counts, b: Counts): Counts {
  return {
    passed: a.passed + b.passed,
    failed: a.failed + b.failed,
    skipped: a.skipped + b.skipped,
  };
}

// --- internal ---

function attribute(element: string, name: string): number | undefined {
  const value = new RegExp(`\\s${name}="(\\d+)"`).exec(element)?.[1];
  return value === undefined ? undefined : Number(value);
}

function text(head: string | undefined, name: string): string {
  const value = new RegExp(`\\s${name}="([^"]*)"`).exec(` ${head ?? ""}`)?.[1] ?? "?";
  return value
    .replaceAll("&quot;", '"')
    .replaceAll("&apos;", "'")
    .replaceAll("&lt;", "<")
    .replaceAll("&gt;", ">")
    .replaceAll("&amp;", "&");
}
