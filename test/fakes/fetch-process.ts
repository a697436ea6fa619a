/**
 * Another process that fetches a blob: `bun fetch-process.ts STORE URL DIGEST SIZE`. It writes each phase on a line, and at
 * the end `fetched <bytes>`.
 */
import { rangedSource } from "../../src/http/blob-source.ts";
import { parseDigest } from "../../src/oci/digest.ts";
import { Store } from "../../src/store/store.ts";
import { createTransfers } from "../../src/transfer/transfers.ts";

const [, , root = "", url = "", digest = "", size = ""] = process.argv;
const store = Store.open(root);
const transfers = createTransfers(
  { connections: 8, bytesPerSecond: undefined },
  { pollMs: 5, threadedBytes: 0 },
);
const source = rangedSource("fake", (headers, signal) => fetch(url, { headers, signal }));

await using transaction = await store.begin();
const { fetchedBytes } = await transfers.fetch(
  transaction,
  { digest: parseDigest(digest), size: Number(size) },
  {
    sources: [source],
    signal: new AbortController().signal,
    onPhase: (phase) => process.stdout.write(`${phase}\n`),
  },
);
process.stdout.write(`fetched ${fetchedBytes}\n`);
