/** Whether a stream takes colours, and the few styles that Tug uses. Pure; imports nothing. */

type Env = Readonly<Record<string, string | undefined>>;

export interface Style {
  readonly enabled: boolean;
  bold(text: string): string;
  dim(text: string): string;
  italic(text: string): string;
  red(text: string): string;
  green(text: string): string;
  yellow(text: string): string;
  cyan(text: string): string;
}

/**
 * `NO_COLOR` (any value but empty) wins over `FORCE_COLOR`, which wins over the terminal; a dumb terminal has none.
 *
 * @see https://no-color.org and https://force-color.org
 */
export function hasColor(stream: { readonly isTTY?: boolean }, env: Env = process.env): boolean {
  if (env["NO_COLOR"]) return false;
  const forced = env["FORCE_COLOR"];
  if (forced !== undefined && forced !== "") return forced !== "0" && forced !== "false";
  return stream.isTTY === true && env["TERM"] !== "dumb";
}

/** True for a terminal that understands cursor movement, which a dumb one does not. */
export function isInteractive(
  stream: { readonly isTTY?: boolean },
  env: Env = process.env,
): boolean {
  return stream.isTTY === true && env["TERM"] !== "dumb";
}

export function createStyle(enabled: boolean): Style {
  const wrap =
    (open: number, close: number) =>
    (text: string): string =>
      enabled && text !== "" ? `\u001B[${open}m${text}\u001B[${close}m` : text;
  return {
    enabled,
    bold: wrap(1, 22),
    dim: wrap(2, 22),
    italic: wrap(3, 23),
    red: wrap(31, 39),
    green: wrap(32, 39),
    yellow: wrap(33, 39),
    cyan: wrap(36, 39),
  };
}

/**
 * Takes from untrusted text everything that could steer a terminal: C0 and C1 control characters except tab and
 * newline. Without its escape character the rest of a sequence is harmless text, so it works on any cut of a stream.
 */
export function stripControls(text: string): string {
  // oxlint-disable-next-line no-control-regex -- control characters are what it is about
  return text.replaceAll(/[\u0000-\u0008\u000B-\u001F\u007F-\u009F]/g, "");
}
