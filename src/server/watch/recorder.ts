/** Requests and their answers, for `tug requests`: written when an answer has ended, and shown to whoever follows. */
import type { RequestRecord } from "../../api/requests.ts";
import { toAppError } from "../../errors.ts";
import { log } from "../../log.ts";
import type { RequestRecords } from "../../state/request-records.ts";
import { type FinishedListener, type FinishedRequest, MAX_KEPT_BODY } from "./capture.ts";
import { boundText, cutMedia } from "./cut-media.ts";

/** Vectors are of no use to a reader: the first numbers show that they came. Bytes. */
const MAX_EMBEDDING = 4096;
/** What went wrong is told in a sentence. Characters. */
const MAX_ERROR = 1000;
/** Of a name, a path. Characters. */
const MAX_FIELD = 1000;
/** Followers are people at terminals. */
const MAX_FOLLOWERS = 32;
/** The client may have chosen it. Characters. */
const MAX_ID = 128;

export type RecordListener = (record: RequestRecord) => void;

export class Recorder implements FinishedListener {
  readonly #records: Pick<RequestRecords, "add" | "find" | "settle">;
  readonly #listeners = new Set<RecordListener>();
  #isFailing = false;

  constructor(records: Pick<RequestRecords, "add" | "find" | "settle">) {
    this.#records = records;
  }

  finished(request: FinishedRequest): void {
    const record = this.#store(toRecord(request));
    for (const listener of this.#listeners) listener(record);
  }

  idle(): void {
    try {
      this.#records.settle();
    } catch (thrown) {
      this.#warn(thrown);
    }
  }

  /** @returns the way to stop; undefined if there are too many already */
  follow(listener: RecordListener): (() => void) | undefined {
    if (this.#listeners.size >= MAX_FOLLOWERS) return undefined;
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  // --- internal ---

  /** @returns it with an id of its own: clients may choose theirs, and choose it twice */
  #store(record: RequestRecord): RequestRecord {
    try {
      const isTaken = this.#records.find(record.id) !== undefined;
      const unique = isTaken ? { ...record, id: `${record.id}-${Bun.randomUUIDv7()}` } : record;
      this.#records.add(unique);
      this.#isFailing = false;
      return unique;
    } catch (thrown) {
      this.#warn(thrown);
      return record;
    }
  }

  /** Once an outage: a disk may be full for days. */
  #warn(thrown: unknown): void {
    if (!this.#isFailing) {
      log.warn(`server: requests not recorded reason=${toAppError(thrown).message}`);
    }
    this.#isFailing = true;
  }
}

// --- internal ---

function toRecord(request: FinishedRequest): RequestRecord {
  const { answer, startedMs } = request;
  return {
    id: request.id.slice(0, MAX_ID),
    model: request.modelName.slice(0, MAX_FIELD),
    model_id: request.modelId,
    mode: request.mode,
    dialect: request.dialect,
    backend: request.worker?.backend ?? null,
    method: request.method,
    url: withoutSecrets(request.path).slice(0, MAX_FIELD),
    stream: request.isStream,
    ...bodiesOf(request),
    error: (request.error?.message ?? answer.error)?.slice(0, MAX_ERROR) ?? null,
    timestamp: Math.floor(startedMs / 1000),
    started_at: new Date(startedMs).toISOString(),
    status_code: request.status,
    ...timesOf(request),
    input_tokens: answer.inputTokens,
    output_tokens: answer.outputTokens,
    finish_reasons: answer.finishReasons,
    user_agent: request.userAgent,
    origin: request.origin,
  };
}

interface KeptText {
  readonly text: string;
  readonly isCut: boolean;
}

function bodiesOf(finished: FinishedRequest) {
  const { text, isCut, mediaCut } = finished.request ?? { text: "", isCut: false, mediaCut: 0 };
  const response = toResponse(finished);
  return {
    request: text,
    request_cut: isCut,
    media_cut: mediaCut,
    response: response?.text ?? null,
    response_cut: response?.isCut ?? false,
  };
}

function timesOf({ worker, startedMs, endedMs, firstChunkMs }: FinishedRequest) {
  const since = (ms: number | undefined): number | null =>
    ms === undefined ? null : Math.max(0, Math.round(ms - startedMs));
  return {
    duration_ms: since(endedMs) ?? 0,
    queue_ms: worker === undefined ? null : Math.max(0, Math.round(worker.waitedMs)),
    first_token_ms: since(firstChunkMs),
  };
}

function toResponse(request: FinishedRequest): KeptText | undefined {
  const { head, tail, lostBytes } = request.answerBytes.kept();
  if (head.byteLength === 0) return undefined;
  const maxBytes = request.mode === "embedding" ? MAX_EMBEDDING : MAX_KEPT_BODY;
  if (request.contentType === "") {
    return { text: JSON.stringify("(an answer that cannot be read as text)"), isCut: true };
  }
  const { body } = request.answer;
  const isLost = lostBytes > 0;
  if (body === undefined) {
    return boundText(head, Math.min(maxBytes, head.byteLength), tail.byteLength + lostBytes);
  }
  const kept = cutMedia(Buffer.from(JSON.stringify(body)), maxBytes);
  return { text: kept.text, isCut: kept.isCut || isLost };
}

/** Some clients put their key into the query. */
function withoutSecrets(path: string): string {
  const at = path.indexOf("?");
  if (at < 0) return path;
  const query = new URLSearchParams(path.slice(at + 1));
  for (const name of Array.from(query.keys())) {
    if (/key|token|secret|password|auth|sig/i.test(name)) query.set(name, "…");
  }
  return `${path.slice(0, at)}?${query.toString()}`;
}
