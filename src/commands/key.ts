import { type ApiKeyInfo, type CreateKeyRequest, KEY_SCOPES, type KeyScope } from "../api/keys.ts";
import { connect } from "../client/connect.ts";
import { createKey, listKeys, revokeKeys } from "../client/keys.ts";
import { parseDuration } from "../config.ts";
import { AppError } from "../errors.ts";
import { nearest } from "../nearest.ts";
import { formatAge, formatDuration } from "../terminal/bytes.ts";
import { printJson } from "../terminal/json.ts";
import { print } from "../terminal/output.ts";
import { stripControls } from "../terminal/style.ts";
import { type CommandContext, JSON_FLAG, defineCommand } from "./command.ts";

const ACTIONS = ["create", "list", "revoke"] as const;
type Action = (typeof ACTIONS)[number];

const HEADERS = ["NAME", "KEY", "SCOPES", "LIMITS", "CREATED", "EXPIRES", "LAST USED"];
/** As the API takes them. */
const MAX_LIMIT = 1_000_000;

const ARGS = {
  action: { type: "positional", description: "create, list or revoke" },
  names: {
    type: "positional",
    required: false,
    rest: true,
    description: "The name of the new key, or those of the keys to revoke",
  },
  scope: {
    type: "string",
    valueHint: "SCOPES",
    description: "What it may do: inference (unless given), models, admin; several with commas",
    multiple: true,
  },
  expires: {
    type: "string",
    valueHint: "TIME",
    description: "When it ends: a time from now such as `30d`, or a date",
  },
  "max-concurrent": { type: "string", valueHint: "N", description: "Requests at once" },
  rate: { type: "string", valueHint: "N/min", description: "Requests a minute" },
  json: JSON_FLAG,
} as const;

type Context = CommandContext<typeof ARGS>;

export const command = defineCommand({
  args: ARGS,
  details: `Keys are needed where others reach the runner (\`tug serve --lan\`, \`--host ADDRESS\`) or TUG_API_KEY is set. A key is shown
once, when it is made; only a hash of it is kept. models: pull, package, remove, install engines. admin: everything, also
logs, what others asked, and keys. A revoked key is refused at once; answers that have begun are finished.`,
  async run(context) {
    const action = toAction(context.args.action);
    refuseStray(action, context.args);
    switch (action) {
      case "create":
        return create(context);
      case "list":
        return list(context);
      case "revoke":
        return revoke(context);
    }
  },
});

/** `30d` from now, or a date, as the API takes it. @throws usage */
export function toExpiry(text: string, nowMs: number): string {
  const date =
    /^\d{4}-\d\d-\d\d(?:[Tt ]\d\d:\d\d(?::\d\d(?:\.\d{1,3})?)?(?:[Zz]|[+-]\d\d:\d\d)?)?$/;
  const atMs = date.test(text)
    ? Date.parse(text.replace(" ", "T").toUpperCase())
    : nowMs + parseDuration(text);
  if (Number.isNaN(atMs)) {
    throw new AppError("usage", `\`${text}\` is no date`, { hint: "Write it as `2030-01-31`." });
  }
  if (atMs > nowMs) return new Date(atMs).toISOString();
  throw new AppError(
    "usage",
    `cannot make a key that ends at \`${text}\`: that is not in the future`,
    {
      hint: "Give a time from now such as `30d`, or leave out `--expires` for a key that does not end.",
    },
  );
}

/** `60/min`, or 60. @throws usage */
export function parseKeyRate(text: string): number {
  return parseLimit("--rate", text.trim().replace(/\s*\/\s*m(?:in(?:ute)?)?$/i, ""), text);
}

/** @throws usage */
export function toScopes(given: readonly string[]): KeyScope[] {
  const words = given.flatMap((text) => text.split(",")).map((word) => word.trim());
  const unknown = words.find((word) => !KEY_SCOPES.some((scope) => scope === word));
  if (unknown !== undefined) {
    throw new AppError("usage", `\`${unknown}\` is not a scope`, {
      hint: `Use ${KEY_SCOPES.join(", ")}, or several with commas.`,
    });
  }
  return KEY_SCOPES.filter((scope) => words.includes(scope));
}

// --- internal ---

function toAction(word: string): Action {
  const found = ACTIONS.find((action) => action === word);
  if (found !== undefined) return found;
  const guess = nearest(word, ACTIONS);
  throw new AppError("usage", `\`${word}\` is nothing to do with keys`, {
    hint:
      guess === undefined
        ? `Use one of ${ACTIONS.join(", ")}.`
        : `Did you mean \`tug key ${guess}\`?`,
  });
}

/** Flags and names that the action has no use for. @throws usage */
function refuseStray(action: Action, args: Context["args"]): void {
  const flags = ["expires", "max-concurrent", "rate"] as const;
  const stray = args.scope.length > 0 ? "scope" : flags.find((name) => args[name] !== undefined);
  if (action !== "create" && stray !== undefined) {
    throw new AppError("usage", `\`--${stray}\` goes with \`tug key create\``, {
      hint: "A key is not changed: revoke it, and make another one.",
    });
  }
  const { length } = args.names;
  if (action === "list" && length > 0) {
    throw new AppError("usage", `unexpected argument \`${args.names[0]}\``, {
      hint: "`tug key list` shows all keys.",
    });
  }
  if (action === "create" && length !== 1) {
    throw new AppError("usage", "give the new key one name", {
      hint: "Write `tug key create NAME`; the name says whose it is.",
    });
  }
  if (action === "revoke" && length === 0) {
    throw new AppError("usage", "say which keys to revoke", {
      hint: "Write `tug key revoke NAME`; `tug key list` shows the names.",
    });
  }
}

async function create({ args, config, paths, signal }: Context): Promise<void> {
  const request = toRequest(args, Date.now());
  const client = await connect("models", { config, paths, signal });
  const made = await createKey(client, request, { signal });
  if (args.json === true) return printJson(made);
  const until = made.expires === null ? "" : `, until ${made.expires}`;
  process.stderr.write(
    stripControls(`Key ${made.name} (${made.scopes.join(", ")}${until}). It is not shown again:\n`),
  );
  await print(`${made.key}\n`);
}

function toRequest(args: Context["args"], nowMs: number): CreateKeyRequest {
  const { scope, expires, rate, "max-concurrent": concurrent } = args;
  return {
    name: args.names[0] ?? "",
    ...(scope.length === 0 ? {} : { scopes: toScopes(scope) }),
    ...(expires === undefined ? {} : { expires: toExpiry(expires, nowMs) }),
    ...(rate === undefined ? {} : { rate_per_minute: parseKeyRate(rate) }),
    ...(concurrent === undefined
      ? {}
      : { max_concurrent: parseLimit("--max-concurrent", concurrent, concurrent) }),
  };
}

function parseLimit(flag: string, text: string, typed: string): number {
  const number = /^\d{1,7}$/.test(text) ? Number(text) : 0;
  if (number >= 1 && number <= MAX_LIMIT) return number;
  throw new AppError("usage", `\`${typed}\` is not a value of \`${flag}\``, {
    hint: `Give a whole number from 1 to ${MAX_LIMIT}, or leave it out for no limit.`,
  });
}

async function list({ args, config, paths, signal }: Context): Promise<void> {
  const client = await connect("models", { config, paths, signal });
  const keys = await listKeys(client, { signal });
  if (args.json === true) return printJson(keys);
  const { renderTable } = await import("../terminal/table.ts");
  const now = Date.now();
  await print(
    renderTable(
      HEADERS,
      keys.map((key) => toRow(key, now)),
    ),
  );
}

function toRow(key: ApiKeyInfo, nowMs: number): string[] {
  const concurrent = key.max_concurrent === null ? [] : [`${key.max_concurrent} at once`];
  const rate = key.rate_per_minute === null ? [] : [`${key.rate_per_minute}/min`];
  return [
    key.name,
    `${key.prefix}…`,
    key.scopes.join(","),
    [...concurrent, ...rate].join(", ") || "-",
    formatAge(key.created),
    expiry(key, nowMs),
    key.last_used === null ? "never" : formatAge(key.last_used),
  ];
}

function expiry({ expires, expired }: ApiKeyInfo, nowMs: number): string {
  if (expires === null) return "never";
  return expired ? "expired" : `in ${formatDuration(Date.parse(expires) - nowMs)}`;
}

/** Those that there are go, whatever else was named. */
async function revoke({ args, config, paths, signal }: Context): Promise<void> {
  const client = await connect("models", { config, paths, signal });
  const result = await revokeKeys(client, { names: args.names }, { signal });
  if (args.json === true && result.unknown.length === 0) return printJson(result);
  if (args.json !== true) {
    for (const name of result.revoked) await print(`Revoked ${stripControls(name)}\n`);
  }
  if (result.unknown.length === 0) return undefined;
  const names = result.unknown.map((name) => `\`${name.slice(0, 80)}\``).join(", ");
  throw new AppError("not_found", `cannot revoke ${names.slice(0, 400)}: there is no such key`, {
    hint: "See `tug key list`.",
    details: { ...result },
  });
}
