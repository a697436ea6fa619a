/**
 * SGLang's server without a model: refuses what the real one refuses before it loads one, then serves. Like SGLang
 * 0.5.23, whose options are in `options.txt`, as its own parser lists them.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";

import { ArgumentError, type ParsedArgs, parseLike } from "../../fakes/argparse.ts";
import { serveOpenAi } from "../../fakes/python-server.ts";

/** @throws ArgumentError */
export function parseSglang(argv: readonly string[]): ParsedArgs {
  const table = readFileSync(join(import.meta.dir, "options.txt"), "utf8");
  const parsed = parseLike(table, argv, { maxPositionals: 0 });
  if (!parsed.options.has("--model-path")) {
    throw new ArgumentError("the following arguments are required: --model-path/--model");
  }
  return parsed;
}

if (import.meta.main) run();

// --- internal ---

function run(): void {
  try {
    start(parseSglang(process.argv.slice(2)).options);
  } catch (thrown) {
    if (!(thrown instanceof ArgumentError)) throw thrown;
    process.stderr.write(`launch_server.py: error: ${thrown.message}\n`);
    process.exit(2);
  }
}

function start(options: ParsedArgs["options"]): void {
  const one = (name: string): string | undefined => options.get(name)?.[0];
  const config = JSON.parse(
    readFileSync(join(one("--model-path") ?? "", "config.json"), "utf8"),
  ) as { readonly max_position_embeddings?: number };
  const own = config.max_position_embeddings ?? 2048;
  const contextTokens = Number(one("--context-length") ?? own);
  if (contextTokens > own) {
    const reason = `Warning: User-specified context_length (${contextTokens}) is greater than the derived context_length (${own}). `;
    process.stderr.write(`[2026-11-21 20:00:00] Scheduler hit an exception: Traceback\n`);
    process.stderr.write(`ValueError: ${reason}\n`);
    process.stderr.write("[2026-11-21 20:00:00] Received sigquit from a child process.\n");
    process.exit(1);
  }
  serveOpenAi({
    names: [one("--served-model-name") ?? ""],
    contextTokens,
    listen: { hostname: one("--host") ?? "127.0.0.1", port: Number(one("--port") ?? 30_000) },
  });
}
