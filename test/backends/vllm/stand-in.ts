/**
 * `vllm serve` without a model: refuses what the real one refuses before it loads one, then serves. Like vLLM 0.32.0,
 * whose options are in `options.txt`, as its own parser lists them.
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

import { REASONING_PARSERS, TOOL_PARSERS } from "../../../backends/vllm/flag-table.ts";
import { ArgumentError, type ParsedArgs, parseLike } from "../../fakes/argparse.ts";
import { serveOpenAi } from "../../fakes/python-server.ts";

/** @throws ArgumentError as the real parser; Error as what looks at the arguments after it */
export function parseVllm(argv: readonly string[]): ParsedArgs {
  const [command, model = "", ...rest] = argv;
  if (command !== "serve") throw new ArgumentError(`invalid choice: '${command}'`);
  if (model.startsWith("-")) throw new Error("`model` should be provided as the first positional");
  const table = readFileSync(join(import.meta.dir, "options.txt"), "utf8");
  const parsed = parseLike(table, [model, ...rest.map(dashed)], { maxPositionals: 1 });
  validate(parsed.options);
  return parsed;
}

if (import.meta.main) run();

// --- internal ---

/** Its parser takes `_` for `-` in names. */
function dashed(word: string): string {
  if (!word.startsWith("--")) return word;
  const [name = "", ...value] = word.split("=");
  return [name.replaceAll("_", "-"), ...value].join("=");
}

function validate(options: ParsedArgs["options"]): void {
  const last = (name: string): string | undefined => options.get(name)?.at(-1);
  const isAuto = last("--enable-auto-tool-choice") === "--enable-auto-tool-choice";
  const tools = last("--tool-call-parser");
  if (isAuto && tools === undefined) {
    throw new TypeError("Error: --enable-auto-tool-choice requires --tool-call-parser");
  }
  requireRegistered(tools, TOOL_PARSERS);
  requireRegistered(last("--reasoning-parser"), REASONING_PARSERS);
  const template = last("--chat-template");
  if (template !== undefined && !/[{}\n]/.test(template) && !existsSync(template)) {
    throw new Error(
      `The supplied chat template (${template}) looks like a file path, but doesn't exist.`,
    );
  }
}

function requireRegistered(parser: string | undefined, known: typeof TOOL_PARSERS): void {
  if (parser === undefined || known.kind !== "choice" || known.of.includes(parser)) return;
  throw new TypeError(`parser '${parser}' has not been registered`);
}

function run(): void {
  try {
    const { options, positionals } = parseVllm(process.argv.slice(2));
    start(positionals[0] ?? "", options);
  } catch (thrown) {
    const isUsage = thrown instanceof ArgumentError;
    const { name, message } = thrown as Error;
    process.stderr.write(isUsage ? `vllm: error: ${message}\n` : traceback(name, message));
    process.exit(isUsage ? 2 : 1);
  }
}

function start(directory: string, options: ParsedArgs["options"]): void {
  const config = JSON.parse(readFileSync(join(directory, "config.json"), "utf8")) as {
    readonly max_position_embeddings?: number;
    readonly architectures?: readonly string[];
    /** Of a model whose engine falls asleep and never wakes. */
    readonly never_wakes?: boolean;
  };
  const own = config.max_position_embeddings ?? 2048;
  const contextTokens = Number(options.get("--max-model-len")?.[0] ?? own);
  if (contextTokens > own) failInCore(tooLong(contextTokens, own));
  if (config.architectures?.[0] === "NobodyKnowsForCausalLM") {
    failInCore(`Model architectures ['NobodyKnowsForCausalLM'] are not supported for now.`);
  }
  const unix = options.get("--uds")?.[0];
  if (unix === undefined) throw new Error("this stand-in listens on a unix socket");
  const canSleep =
    options.get("--enable-sleep-mode")?.[0] === "--enable-sleep-mode" &&
    process.env["VLLM_SERVER_DEV_MODE"] === "1";
  serveOpenAi({
    wakes: canSleep ? config.never_wakes !== true : undefined,
    names: options.get("--served-model-name") ?? [directory],
    contextTokens,
    listen: { unix },
  });
}

function tooLong(wanted: number, own: number): string {
  return `User-specified max_model_len (${wanted}) is greater than the derived max_model_len (max_position_embeddings=${own} or model_max_length=None in model's config.json).`;
}

/** The cause is told by the process that computes; the one that listens follows. */
function failInCore(message: string): never {
  const prefix = "(EngineCore pid=7) ERROR 11-21 20:00:00 [core.py:1142] ";
  const core = traceback("ValueError", message).trimEnd().split("\n");
  process.stderr.write(core.map((line) => `${prefix}${line}\n`).join(""));
  const after = "Engine core initialization failed. See root cause above. Failed core proc(s): {}";
  process.stderr.write(`(APIServer pid=1) ${traceback("RuntimeError", after)}`);
  process.exit(1);
}

function traceback(kind: string, message: string): string {
  return `Traceback (most recent call last):\n  File "serve.py", line 1, in cmd\n${kind}: ${message}\n`;
}
