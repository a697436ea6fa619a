/** Headers that say what the body of an answer has no place for. */

/** Bytes of an archive: a listener sends a stream in chunks, without a `Content-Length`. */
export const ARCHIVE_SIZE = "x-archive-size";

/** Why an answer is less than it could be: a JSON list of sentences, percent-encoded. */
export const WARNINGS = "x-warnings";

/** In `Accept`: long operations tell of themselves at once, in `ProgressEvent`s; errors are the last of them. */
export const PROGRESS_TYPE = "application/x-ndjson";
