import { describe, expect, test } from "bun:test";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { signCertificate } from "../../../src/server/tls/authority.ts";
import { tlsCredentials, type TlsSettings } from "../../../src/server/tls/credentials.ts";
import { tempDir } from "../../helpers/temp-dir.ts";
import { rejection } from "../fake-deps.ts";

const DAY_MS = 86_400_000;

function settings(directory: string, given: Partial<TlsSettings> = {}): TlsSettings {
  return {
    enabled: false,
    certFile: "",
    keyFile: "",
    directory: join(directory, "tls"),
    hostname: "127.0.0.1",
    hosts: [],
    ...given,
  };
}

/** A certificate of an authority of its own, issued some days ago. */
async function files(directory: string, daysAgo: number): Promise<{ cert: string; key: string }> {
  await tlsCredentials(settings(directory, { enabled: true }));
  const read = (name: string): Promise<string> => Bun.file(join(directory, "tls", name)).text();
  const authority = { cert: await read("ca.crt"), key: await read("ca.key") };
  const now = new Date(Date.now() - daysAgo * DAY_MS);
  const made = await signCertificate(authority, { names: ["localhost"], now });
  const paths = { cert: join(directory, "my.crt"), key: join(directory, "my.key") };
  await writeFile(paths.cert, made.cert);
  await writeFile(paths.key, made.key);
  return paths;
}

describe("tlsCredentials", () => {
  test("credentials: none unless asked for", async () => {
    await using home = await tempDir();

    expect(await tlsCredentials(settings(home.path))).toBeUndefined();
  });

  test("credentials: files that are given win over those that would be made", async () => {
    await using home = await tempDir();
    const { cert, key } = await files(home.path, 1);

    const found = await tlsCredentials(
      settings(home.path, { enabled: true, certFile: cert, keyFile: key }),
    );

    expect(found).toEqual({
      cert: await Bun.file(cert).text(),
      key: await Bun.file(key).text(),
      authority: null,
    });
  });

  test("credentials: an expired certificate is refused, and one of tomorrow", async () => {
    await using home = await tempDir();
    for (const [daysAgo, reason] of [
      [500, "the certificate expired on"],
      [-2, "the certificate is not valid before"],
    ] as const) {
      const { cert, key } = await files(home.path, daysAgo);

      const refused = await rejection(
        tlsCredentials(settings(home.path, { certFile: cert, keyFile: key })),
      );

      expect(refused).toMatchObject({ code: "usage", message: expect.stringContaining(reason) });
    }
  });

  test("credentials: what does not fit together, or is nothing, is refused by name", async () => {
    await using home = await tempDir();
    const { cert, key } = await files(home.path, 1);
    const other = join(home.path, "tls", "ca.key");
    const rubbish = join(home.path, "rubbish");
    await writeFile(rubbish, "\0 no PEM");
    const locked = join(home.path, "locked");
    await writeFile(locked, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n");
    const huge = join(home.path, "huge");
    await writeFile(huge, Buffer.alloc(2_000_000));

    for (const [certFile, keyFile, reason] of [
      [cert, other, "the key is not the certificate's"],
      [rubbish, key, "the certificate is not PEM, or damaged"],
      [cert, rubbish, "the key is not PEM, or damaged"],
      [cert, locked, "the key is protected by a password"],
      [cert, "", "there is a certificate, but no key"],
      ["", key, "there is a key, but no certificate"],
      [join(home.path, "absent"), key, "there is no such file"],
      [home.path, key, "it cannot be read (EISDIR)"],
      [huge, key, "too large"],
    ] as const) {
      const refused = await rejection(tlsCredentials(settings(home.path, { certFile, keyFile })));

      expect(refused).toMatchObject({ code: "usage", message: expect.stringContaining(reason) });
    }
  });
});
