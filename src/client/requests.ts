/** Recorded requests through the API: list, follow, forget, and send one again. */
import type { ClearedRequests, RequestRecord, RequestsOfModel } from "../api/requests.ts";
import { AppError } from "../errors.ts";
import type { CallOptions, Client } from "./client.ts";
import { eventData, lines } from "./stream.ts";

export interface RequestQuery {
  /** A name or id; all unless given. */
  readonly model?: string | undefined;
  readonly limit?: number | undefined;
}

export async function listRequests(
  client: Client,
  query: RequestQuery,
  options: CallOptions,
): Promise<RequestsOfModel[]> {
  const response = await client.call("GET", `/engines/requests${toQuery({ ...query })}`, options);
  return (await response.json()) as RequestsOfModel[];
}

export async function findRequest(
  client: Client,
  id: string,
  options: CallOptions,
): Promise<RequestRecord> {
  const path = `/engines/requests/${encodeURIComponent(id)}`;
  return (await (await client.call("GET", path, options)).json()) as RequestRecord;
}

export async function clearRequests(client: Client, options: CallOptions): Promise<number> {
  const response = await client.call("DELETE", "/engines/requests", options);
  return ((await response.json()) as ClearedRequests).removed;
}

/** Ends when the runner leaves, or with the signal. */
export async function* followRequests(
  client: Client,
  query: RequestQuery & { readonly includeExisting: boolean },
  { signal }: CallOptions,
): AsyncIterable<RequestRecord> {
  const { includeExisting, ...rest } = query;
  const existing = includeExisting ? { include_existing: true } : {};
  const path = `/engines/requests${toQuery({ ...rest, ...existing })}`;
  const headers = { accept: "text/event-stream" };
  const response = await client.call("GET", path, { signal, headers });
  for await (const data of eventData(response)) {
    const record = JSON.parse(data) as Partial<RequestRecord>;
    // The first event only says that one is connected.
    if (typeof record.id === "string") yield record as RequestRecord;
  }
}

/**
 * Sends a recorded request again.
 *
 * @param model instead of the recorded one
 * @returns the parts of the answer as they come: of a stream its events, else the whole
 * @throws not_supported (not all of it was kept)
 */
export async function* replayRequest(
  client: Client,
  record: RequestRecord,
  { model, signal }: CallOptions & { readonly model?: string | undefined },
): AsyncIterable<unknown> {
  const body = { ...toBody(record), ...(model === undefined ? {} : { model }) };
  const response = await client.call(record.method, record.url, { signal, body });
  const type = response.headers.get("content-type") ?? "";
  if (type.startsWith("text/event-stream")) yield* parsedEvents(response);
  else if (type.startsWith("application/x-ndjson")) yield* parsedLines(response);
  else yield await response.json();
}

// --- internal ---

/** @throws not_supported */
function toBody(record: RequestRecord): object {
  const missing = whatIsMissing(record);
  if (missing !== undefined) {
    throw new AppError("not_supported", `cannot replay \`${record.id}\`: ${missing}`, {
      hint: "Send the request from where it came from.",
    });
  }
  return JSON.parse(record.request) as object;
}

function whatIsMissing(record: RequestRecord): string | undefined {
  if (record.media_cut > 0) return "its images, sounds or files were not kept";
  if (record.request_cut) return "it was too long to be kept whole";
  if (!/^\/[^/]/.test(record.url)) return "its address is none of this runner";
  return isObject(record.request) ? undefined : "its body is no JSON object";
}

function isObject(text: string): boolean {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value);
  } catch {
    return false;
  }
}

async function* parsedEvents(response: Response): AsyncIterable<unknown> {
  for await (const data of eventData(response)) {
    if (data !== "[DONE]") yield JSON.parse(data);
  }
}

async function* parsedLines(response: Response): AsyncIterable<unknown> {
  for await (const line of lines(response)) yield JSON.parse(line);
}

function toQuery(query: Readonly<Record<string, string | number | boolean | undefined>>): string {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined) parameters.set(name, String(value));
  }
  return parameters.size === 0 ? "" : `?${parameters.toString()}`;
}
