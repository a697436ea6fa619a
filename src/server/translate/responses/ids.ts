/** Names of responses and of what is in them: whoever knows one may read it, so they cannot be guessed. */

/** Bits are eight times as many; OpenAI's are as long. */
const ID_BYTES = 24;

export type IdKind = "resp" | "msg" | "rs" | "fc" | "fco" | "call";

export type MakeId = (kind: IdKind) => string;

export const makeId: MakeId = (kind) =>
  `${kind}_${Buffer.from(crypto.getRandomValues(new Uint8Array(ID_BYTES))).toString("hex")}`;
