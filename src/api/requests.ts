/** Recorded requests on the wire: `/engines/requests`. The names of Docker Model Runner's recorder keep their meaning. */

/** One request and its answer, as far as they were kept. Every key is always present. */
export interface RequestRecord {
  readonly id: string;
  /** As the client wrote it. */
  readonly model: string;
  /** `sha256:<hex>` of the manifest. */
  readonly model_id: string;
  readonly mode: string;
  readonly dialect: string;
  /** The engine that answered; null if none did. */
  readonly backend: string | null;
  readonly method: string;
  /** Path and query as the client asked; values of parameters that look like a secret are left out. */
  readonly url: string;
  readonly stream: boolean;
  /** The body, JSON text; media in it is cut short and says so. */
  readonly request: string;
  /** Whether it was longer than what is kept: then it is not whole, and no JSON. */
  readonly request_cut: boolean;
  /** How many images, sounds and files in it were cut short. */
  readonly media_cut: number;
  /** JSON text; a stream as the one message that it adds up to. Null if nothing was answered. */
  readonly response: string | null;
  readonly response_cut: boolean;
  /** Why there is no (whole) answer. */
  readonly error: string | null;
  /** Unix seconds. */
  readonly timestamp: number;
  /** RFC 3339. */
  readonly started_at: string;
  readonly status_code: number;
  readonly duration_ms: number;
  /** Until a worker was there, loading included; null if none was. */
  readonly queue_ms: number | null;
  /** From the request to the first piece of the answer. */
  readonly first_token_ms: number | null;
  readonly input_tokens: number | null;
  readonly output_tokens: number | null;
  readonly finish_reasons: readonly string[];
  readonly user_agent: string | null;
  readonly origin: string | null;
}

/** `GET /engines/requests`: one a model, newest request last. `config` is there for Docker Model Runner's clients. */
export interface RequestsOfModel {
  readonly count: number;
  readonly model: string;
  readonly config: Readonly<Record<string, never>>;
  readonly records: readonly RequestRecord[];
}

/** Events of `GET /engines/requests` with `Accept: text/event-stream`. */
export type RequestEventName = "connected" | "existing_request" | "new_request";

/** `DELETE /engines/requests`. */
export interface ClearedRequests {
  readonly removed: number;
}
