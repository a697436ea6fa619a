/** The help texts of the chat. */
import { COMMANDS, NUMBER_PARAMETERS, type HelpTopic } from "./slash-commands.ts";

export function renderHelp(topic: HelpTopic): string {
  return HELP[topic];
}

// --- internal ---

function renderRows(rows: readonly (readonly [string, string])[]): string {
  const width = Math.max(...rows.map(([left]) => left.length));
  return rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}\n`).join("");
}

const GENERAL = `Commands:
${renderRows(COMMANDS.map(({ usage, help }) => [usage, help]))}
Type """ before and after a message of several lines, or press Alt+Enter for a new line.
Type /? shortcuts for the keys, /? files for how to include files and images.
`;

const SHORTCUTS = `Keys:
${renderRows([
  ["Enter, Ctrl+J", "send"],
  ["Alt+Enter", "new line"],
  ["Up, Down, Ctrl+P, Ctrl+N", "earlier and later messages"],
  ["Left, Right, Ctrl+B, Ctrl+F", "move by a character"],
  ["Alt+B, Alt+F, Ctrl+Left, Ctrl+Right", "move by a word"],
  ["Ctrl+A, Home, Ctrl+E, End", "move to the start or end of the line"],
  ["Backspace, Ctrl+H, Delete", "delete a character"],
  ["Ctrl+W, Alt+Backspace, Alt+D", "delete a word"],
  ["Ctrl+U, Ctrl+K", "delete to the start or end of the line"],
  ["Ctrl+L", "clear the screen"],
  ["Ctrl+X", "write the message in $VISUAL or $EDITOR"],
  ["Tab", "complete a command"],
  ["Ctrl+Z", "suspend"],
  ["Ctrl+C", "drop what is typed; stop the answer"],
  ["Ctrl+D", "leave, on an empty line"],
])}`;

const FILES = `Files and images:
${renderRows([
  ["@notes.txt", "is replaced by the file's text"],
  ['@"my notes.txt"', "the same for a name with spaces"],
  ["./cat.png, /tmp/cat.jpg", "attaches the image; so does @cat.png"],
])}
Text up to 1 MiB and images up to 100 MB. A name that is not a file stays as it is typed.
`;

const SET = `Settings:
${renderRows([
  ["/set system TEXT", "the system message; without TEXT there is none"],
  ["/set parameter NAME VALUE", "a parameter; without VALUE, the model's own"],
  ["/set num_ctx TOKENS", "the context size; loads the model anew"],
  ["/set reasoning on|off", "whether the model reasons before it answers"],
  ["/set reasoning show|hide", "whether reasoning is shown"],
  ["/set verbose|quiet", "whether timings follow each answer"],
])}
Parameters:
${renderRows([
  ...Object.entries(NUMBER_PARAMETERS).map(([name, { help }]) => [name, help] as const),
  ["num_ctx", "tokens of context"],
  ["stop", 'texts that end the answer, such as "\\n\\n"'],
])}`;

const HELP: Readonly<Record<HelpTopic, string>> = {
  general: GENERAL,
  shortcuts: SHORTCUTS,
  files: FILES,
  set: SET,
};
