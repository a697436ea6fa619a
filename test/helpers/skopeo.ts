export const skopeo = Bun.which("skopeo");

/** @returns stdout, byte for byte @throws Error with what it wrote to stderr */
export async function runSkopeo(...args: readonly string[]): Promise<Buffer> {
  const child = Bun.spawn([skopeo ?? "skopeo", ...args], { stdout: "pipe", stderr: "pipe" });
  const [stdout, stderr] = await Promise.all([child.stdout.bytes(), child.stderr.text()]);
  if ((await child.exited) !== 0) throw new Error(`skopeo ${args.join(" ")} failed: ${stderr}`);
  return Buffer.from(stdout);
}
