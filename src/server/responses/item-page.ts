/** One page of a conversation, as the query of its request asks for it. */
import type { ResponseItem, ResponseItemList } from "../../api/responses.ts";
import { refuse } from "../translate/responses/refuse.ts";

/** As OpenAI's. */
const DEFAULT_PAGE = 20;
const MAX_PAGE = 100;

/** As the client wrote it. */
export interface ItemQuery {
  readonly order?: string | undefined;
  readonly limit?: string | undefined;
  readonly after?: string | undefined;
}

/** @param items oldest first @throws invalid_request */
export function toItemPage(
  items: readonly ResponseItem[],
  { order = "desc", limit, after }: ItemQuery,
): ResponseItemList {
  if (order !== "asc" && order !== "desc") throw refuse("order", "it must be `asc` or `desc`");
  const size = toSize(limit);
  const ordered = order === "asc" ? items : items.toReversed();
  const start = after === undefined ? 0 : ordered.findIndex((item) => item.id === after) + 1;
  if (after !== undefined && start === 0) throw refuse("after", "there is no such item");
  const data = ordered.slice(start, start + size);
  return {
    object: "list",
    data,
    first_id: data[0]?.id ?? null,
    last_id: data.at(-1)?.id ?? null,
    has_more: start + size < ordered.length,
  };
}

/** @throws invalid_request */
export function toCount(text: string, field: string, least: number): number {
  const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= least) return value;
  throw refuse(field, `it must be a number, ${least} or more`);
}

// --- internal ---

function toSize(limit: string | undefined): number {
  const size = limit === undefined ? DEFAULT_PAGE : toCount(limit, "limit", 1);
  if (size > MAX_PAGE) throw refuse("limit", `it is more than ${MAX_PAGE}`);
  return size;
}
