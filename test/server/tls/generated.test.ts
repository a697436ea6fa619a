import { describe, expect, test } from "bun:test";
import { X509Certificate } from "node:crypto";
import { chmodSync, mkdirSync, readdirSync, statSync } from "node:fs";
import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { generatedCertificate } from "../../../src/server/tls/generated.ts";
import { coversNames } from "../../../src/server/tls/pair.ts";
import type { TlsFiles } from "../../../src/server/tls/pair.ts";
import { certificates, openssl } from "../../helpers/certificates.ts";
import { tempDir } from "../../helpers/temp-dir.ts";
import { isWindows, testIf } from "../../helpers/test-if.ts";
import { rejection } from "../fake-deps.ts";

const NOW = new Date("2026-06-01T00:00:00Z");
const DAY_MS = 86_400_000;

interface Made extends TlsFiles {
  readonly certificate: X509Certificate;
  readonly authorityText: string;
}

async function make(
  directory: string,
  options: { day?: number; addresses?: string[]; hostname?: string } = {},
): Promise<Made> {
  const files = await generatedCertificate({
    directory,
    machine: {
      hostname: options.hostname ?? "box",
      addresses: options.addresses ?? ["192.168.1.5"],
      others: ["127.0.0.1"],
    },
    now: new Date(NOW.getTime() + (options.day ?? 0) * DAY_MS),
  });
  const authorityText = await readFile(files.authority ?? "", "utf8");
  return { ...files, certificate: new X509Certificate(files.cert), authorityText };
}

describe("generatedCertificate", () => {
  test("generated: an authority for ten years, and a certificate for 397 days", async () => {
    await using home = await tempDir();

    const { certificate, authorityText } = await make(join(home.path, "tls"));
    const authority = new X509Certificate(authorityText);

    expect(authority.ca).toBe(true);
    expect(certificate.ca).toBe(false);
    expect(certificate.verify(authority.publicKey)).toBe(true);
    expect(daysAfter(authority.validTo)).toBe(3650);
    expect(daysAfter(certificate.validTo)).toBe(397);
    expect(authority.publicKey.asymmetricKeyDetails?.namedCurve).toBe("prime256v1");
    expect(coversNames(certificate, ["localhost", "127.0.0.1", "::1", "box", "192.168.1.5"])).toBe(
      true,
    );
    expect(coversNames(certificate, ["example.com"])).toBe(false);
  });

  testIf(!isWindows, "Windows has no such modes")(
    "generated: only its owner can read what is kept, whatever the umask",
    async () => {
      await using home = await tempDir();
      const directory = join(home.path, "tls");
      const umask = process.umask(0);
      try {
        await make(directory);
      } finally {
        process.umask(umask);
      }

      expect(statSync(directory).mode & 0o777).toBe(0o700);
      const names = readdirSync(directory).toSorted();
      expect(names).toEqual(["ca.crt", "ca.domains", "ca.key", "server.crt", "server.key"]);
      for (const name of names) {
        expect(statSync(join(directory, name)).mode & 0o777).toBe(0o600);
      }
    },
  );

  testIf(!isWindows, "Windows has no such modes")(
    "generated: a directory that others can enter is closed",
    async () => {
      await using home = await tempDir();
      const directory = join(home.path, "tls");
      mkdirSync(directory);
      chmodSync(directory, 0o755);

      await make(directory);

      expect(statSync(directory).mode & 0o777).toBe(0o700);
    },
  );

  test("generated: the next start takes what is there", async () => {
    await using home = await tempDir();

    const first = await make(home.path);
    const second = await make(home.path, { day: 366 });

    expect(second.cert).toBe(first.cert);
    expect(second.key).toBe(first.key);
  });

  test("generated: with less than 30 days left it is renewed, and the authority stays", async () => {
    await using home = await tempDir();

    const first = await make(home.path);
    const second = await make(home.path, { day: 368 });

    expect(second.cert).not.toBe(first.cert);
    expect(second.authorityText).toBe(first.authorityText);
    expect(daysAfter(second.certificate.validTo)).toBe(368 + 397);
  });

  test("generated: a new address is a new certificate of the same authority", async () => {
    await using home = await tempDir();

    const first = await make(home.path);
    const second = await make(home.path, { addresses: ["192.168.1.5", "10.0.0.9"] });
    const third = await make(home.path);

    expect(coversNames(first.certificate, ["10.0.0.9"])).toBe(false);
    expect(coversNames(second.certificate, ["10.0.0.9", "192.168.1.5"])).toBe(true);
    expect(second.authorityText).toBe(first.authorityText);
    // An address that has gone is no reason for another one.
    expect(third.cert).toBe(second.cert);
  });

  test("generated: a machine that was renamed keeps its authority, and goes without the name", async () => {
    await using home = await tempDir();

    const first = await make(home.path);
    const second = await make(home.path, { hostname: "renamed" });

    expect(second.authorityText).toBe(first.authorityText);
    expect(coversNames(second.certificate, ["renamed"])).toBe(false);
    expect(coversNames(second.certificate, ["localhost"])).toBe(true);
  });

  test("generated: a certificate never outlives its authority, which is replaced in its last month", async () => {
    await using home = await tempDir();

    const first = await make(home.path);
    const late = await make(home.path, { day: 3500 });
    const next = await make(home.path, { day: 3640 });

    expect(daysAfter(late.certificate.validTo)).toBe(3650);
    expect(late.authorityText).toBe(first.authorityText);
    expect(next.authorityText).not.toBe(first.authorityText);
    expect(next.certificate.verify(new X509Certificate(next.authorityText).publicKey)).toBe(true);
  });

  test.each(["server.crt", "server.key"])("generated: a damaged %s is replaced", async (name) => {
    await using home = await tempDir();
    const first = await make(home.path);
    await writeFile(join(home.path, name), "damaged");

    const second = await make(home.path);

    expect(second.cert).not.toBe(first.cert);
    expect(second.authorityText).toBe(first.authorityText);
  });

  test("generated: a lost key of the certificate is replaced", async () => {
    await using home = await tempDir();
    const first = await make(home.path);
    await rm(join(home.path, "server.key"));

    expect((await make(home.path)).cert).not.toBe(first.cert);
  });

  test.each(["ca.crt", "ca.key"])(
    "generated: a damaged %s is an error, because clients trust the authority",
    async (name) => {
      await using home = await tempDir();
      await make(home.path);
      await writeFile(join(home.path, name), "damaged");

      expect(await rejection(make(home.path))).toMatchObject({
        code: "conflict",
        message: expect.stringContaining(home.path),
      });
    },
  );

  test("generated: without its list of domains an authority still signs", async () => {
    await using home = await tempDir();
    const first = await make(home.path);
    await rm(join(home.path, "ca.domains"));

    const second = await make(home.path, { addresses: ["10.0.0.9"] });

    expect(second.authorityText).toBe(first.authorityText);
    expect(coversNames(second.certificate, ["localhost", "10.0.0.9"])).toBe(true);
  });

  testIf(openssl !== null, "openssl is not installed")(
    "generated: a certificate that another authority made is replaced",
    async () => {
      await using home = await tempDir();
      await make(home.path);
      const other = await certificates();
      await writeFile(join(home.path, "server.crt"), other.cert);
      await writeFile(join(home.path, "server.key"), other.key);

      const again = await generatedCertificate({
        directory: home.path,
        machine: { hostname: "box", addresses: [], others: [] },
        now: new Date(),
      });

      expect(again.cert).not.toBe(other.cert);
    },
  );

  testIf(openssl !== null, "openssl is not installed")(
    "generated: whoever has the authority's key cannot sign for a site of the web",
    async () => {
      await using home = await tempDir();
      const { signCertificate } = await import("../../../src/server/tls/authority.ts");
      await make(home.path, { day: daysSince() });
      const read = (name: string): Promise<string> => readFile(join(home.path, name), "utf8");
      const authority = { cert: await read("ca.crt"), key: await read("ca.key") };
      const verify = async (names: readonly string[]): Promise<string> => {
        const { cert } = await signCertificate(authority, { names, now: new Date() });
        const file = join(home.path, "made.crt");
        await writeFile(file, cert);
        const caFile = join(home.path, "ca.crt");
        const child = Bun.spawn([openssl ?? "", "verify", "-CAfile", caFile, file], {
          stdio: ["ignore", "pipe", "pipe"],
        });
        return (await child.stdout.text()) + (await child.stderr.text());
      };

      expect(await verify(["localhost", "127.0.0.1", "10.1.2.3", "nas.lan", "box"])).toContain(
        "OK",
      );
      expect(await verify(["www.example.com"])).toContain("permitted subtree violation");
      expect(await verify(["localhost", "xlocalhost"])).toContain("permitted subtree violation");
    },
  );
});

function daysAfter(text: string): number {
  return Math.round((Date.parse(text) - NOW.getTime()) / DAY_MS);
}

/** Of the real clock, which openssl goes by. */
function daysSince(): number {
  return (Date.now() - NOW.getTime()) / DAY_MS;
}
