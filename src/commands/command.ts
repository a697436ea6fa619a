/** What a command is: its arguments as data, and a function. `cli.ts` parses, runs and reports. */
import type { Config } from "../config.ts";
import type { Paths } from "../paths.ts";

interface Described {
  /** One line, imperative, without a full stop. */
  readonly description: string;
}

export interface StringFlag extends Described {
  readonly type: "string";
  readonly alias?: string;
  /** Name of the value in the usage, upper case. */
  readonly valueHint?: string;
  readonly multiple?: true;
  /** Accepted values. */
  readonly options?: readonly string[];
}

export interface BooleanFlag extends Described {
  readonly type: "boolean";
  readonly alias?: string;
  /** Also accept `--no-NAME`. */
  readonly negatable?: true;
}

export interface Positional extends Described {
  readonly type: "positional";
  readonly required?: boolean;
  /** Takes all that is left. Only the last one may. */
  readonly rest?: true;
}

export type ArgumentDefinition = StringFlag | BooleanFlag | Positional;
export type ArgumentDefinitions = Readonly<Record<string, ArgumentDefinition>>;

type Value<D extends ArgumentDefinition> = D extends BooleanFlag
  ? boolean | undefined
  : D extends { multiple: true } | { rest: true }
    ? readonly string[]
    : D extends { type: "positional"; required: false }
      ? string | undefined
      : D extends Positional
        ? string
        : string | undefined;

export type ArgumentValues<T extends ArgumentDefinitions> = {
  readonly [K in keyof T]: Value<T[K]>;
};

/** What every command gets. */
export interface CommandContext<T extends ArgumentDefinitions> {
  readonly args: ArgumentValues<T>;
  readonly config: Config;
  readonly paths: Paths;
  /** Aborted by Ctrl-C and SIGTERM. */
  readonly signal: AbortSignal;
}

export interface Command<T extends ArgumentDefinitions = ArgumentDefinitions> {
  readonly args: T;
  /** Text shown under the usage. */
  readonly details?: string;
  /** @returns the exit code, 0 if nothing is returned */
  run(context: CommandContext<T>): Promise<number | void>;
}

export function defineCommand<const T extends ArgumentDefinitions>(
  command: Command<T>,
): Command<T> {
  return command;
}

/** The flag of every command that reports. */
export const JSON_FLAG = {
  type: "boolean",
  description: "Print JSON on stdout",
} as const satisfies BooleanFlag;

/** The flag of commands that show a model. */
export const REMOTE_FLAG = {
  type: "boolean",
  alias: "r",
  description: "Look at it in its registry, without pulling it",
} as const satisfies BooleanFlag;
