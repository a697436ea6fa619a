/** Which words of a command are the text of a program: what is put into them is run. Pure. */

/** The interpreter may stand behind another program, such as `env` or `nice`. */
export function programTexts(command: readonly string[]): readonly string[] {
  return command.flatMap((word, at) => textsAfter(nameOf(word), command.slice(at + 1)));
}

// --- internal ---

const SHELL = /^(?:ba|da|z|k|fi|a|c|tc)?sh$|^(?:powershell|pwsh)$/i;
const SHELL_FLAG = /^-(?:[a-z]*c|command|e|ec|encodedcommand)$/i;
const CMD = /^cmd$/i;
const CMD_FLAG = /^\/[ck]$/i;
const PYTHON = /^(?:python|pypy)[\d.]*$/;
const PYTHON_FLAG = /^-[a-z]*c$/i;
const SCRIPT = /^(?:node|bun|deno|perl|ruby|lua|php)[\d.]*$/;
const SCRIPT_FLAG = /^(?:-[a-z]*[epr]|--eval|--print|eval)$/i;

function nameOf(word: string): string {
  return word.replace(/^.*[\\/]/, "").replace(/\.exe$/i, "");
}

function textsAfter(program: string, words: readonly string[]): readonly string[] {
  // All that follows is its text.
  if (CMD.test(program)) return behind(words, CMD_FLAG, Infinity);
  if (SHELL.test(program)) return behind(words, SHELL_FLAG, 1);
  if (PYTHON.test(program)) return behind(ownFlags(words, PYTHON_FLAG), PYTHON_FLAG, 1);
  if (SCRIPT.test(program)) return behind(ownFlags(words, SCRIPT_FLAG), SCRIPT_FLAG, 1);
  return [];
}

function behind(words: readonly string[], flag: RegExp, count: number): readonly string[] {
  const at = words.findIndex((word) => flag.test(word));
  return at < 0 ? [] : words.slice(at + 1, at + 1 + count);
}

/** What follows the name of a script is the script's; a module's, what follows `-m`. */
function ownFlags(words: readonly string[], flag: RegExp): readonly string[] {
  const first = words.findIndex((word) => flag.test(word) || !word.startsWith("-"));
  const isText = flag.test(words[first] ?? "");
  return isText ? words : [];
}
