import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { AppError } from "../../src/errors.ts";
import { parseDigest } from "../../src/oci/digest.ts";
import {
  displayReference,
  formatReference,
  looksLikeId,
  parseReference,
  type Reference,
  parseRegistryHost,
} from "../../src/oci/reference.ts";

const DIGEST = parseDigest(`sha256:${"0123456789abcdef".repeat(4)}`);

describe("parseReference", () => {
  test.each([
    ["gemma3", "docker.io/ai/gemma3:latest"],
    ["  gemma3\n", "docker.io/ai/gemma3:latest"],
    ["gemma3:V1", "docker.io/ai/gemma3:V1"],
    ["gemma3:", "docker.io/ai/gemma3:latest"],
    ["MyOrg/Model", "docker.io/myorg/model:latest"],
    ["ai/a/b:x", "docker.io/ai/a/b:x"],
    ["docker.io/smollm2", "docker.io/ai/smollm2:latest"],
    ["index.docker.io/ai/smollm2", "docker.io/ai/smollm2:latest"],
    ["registry-1.docker.io/ai/smollm2", "docker.io/ai/smollm2:latest"],
    ["docker.io/library/x", "docker.io/library/x:latest"],
    ["registry.example.com/model", "registry.example.com/model:latest"],
    ["Registry.Example.com:5000/Org/Model:Q8_0", "registry.example.com:5000/org/model:Q8_0"],
    ["localhost/x", "localhost/x:latest"],
    ["localhost:5000/x", "localhost:5000/x:latest"],
    ["127.0.0.1:5000/x", "127.0.0.1:5000/x:latest"],
    ["[::1]:5000/x", "[::1]:5000/x:latest"],
    ["hf.co/Org/M:Q8_0", "huggingface.co/org/m:Q8_0"],
    ["ollama.com/llama3.2:1b", "registry.ollama.ai/library/llama3.2:1b"],
    ["ollama.com/library/llama3.2", "registry.ollama.ai/library/llama3.2:latest"],
    ["registry.ollama.ai/me/x", "registry.ollama.ai/me/x:latest"],
    ["smollm2.1", "docker.io/ai/smollm2.1:latest"],
    [`pebble@${DIGEST}`, `docker.io/ai/pebble@${DIGEST}`],
    [`pebble:V1@${DIGEST}`, `docker.io/ai/pebble:V1@${DIGEST}`],
    ["abcdefabcdef", "docker.io/ai/abcdefabcdef:latest"],
    ["a__b/c---d.e_f", "docker.io/a__b/c---d.e_f:latest"],
  ])("reference: %p is %s", (text, canonical) => {
    expect(formatReference(parseReference(text))).toBe(canonical);
  });

  test.each([
    ["", "it is empty"],
    ["   ", "it is empty"],
    ["https://example.com/x", "it is an address"],
    [DIGEST, "it is a digest"],
    [DIGEST.slice(7), "it is a digest"],
    ["a//b", "a part of its name is empty"],
    ["/a", "a part of its name is empty"],
    ["a/", "a part of its name is empty"],
    ["-a", "`-a` is not a valid part"],
    ["a..b", "`a..b` is not a valid part"],
    ["a___b", "`a___b` is not a valid part"],
    ["naïve", "`naïve` is not a valid part"],
    ["a b", "`a b` is not a valid part"],
    ["a:b:c", "`b:c` is not a valid tag"],
    ["a:-x", "`-x` is not a valid tag"],
    [`a:${"x".repeat(129)}`, "is not a valid tag"],
    ["a@sha256:abc", "not a SHA-256 digest"],
    [`a@sha512:${"0".repeat(128)}`, "not a SHA-256 digest"],
    ["ex_ample.com/a", "`ex_ample.com` is not a valid registry"],
    ["example.com:port/a", "is not a valid registry"],
    ["a".repeat(250), "longer than 255"],
    ["a".repeat(10_000), "it is too long"],
  ])("reference: %p is refused because %s", (text, reason) => {
    const attempt = (): Reference => parseReference(text);

    expect(attempt).toThrow(reason);
    expect(attempt).toThrow(
      expect.objectContaining({ code: "invalid_reference", hint: expect.any(String) }),
    );
  });

  test("reference: the default registry can be another one", () => {
    const reference = parseReference("org/model", { defaultRegistry: "Registry.Example.com" });

    expect(formatReference(reference)).toBe("registry.example.com/org/model:latest");
  });

  test("reference: any text is read or refused with a reason, never anything else", () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), anyName()), (text) => {
        try {
          const canonical = formatReference(parseReference(text));
          return formatReference(parseReference(canonical)) === canonical;
        } catch (error) {
          return error instanceof AppError && error.code === "invalid_reference";
        }
      }),
    );
  });
});

describe("displayReference", () => {
  test.each([
    ["docker.io/ai/pebble:latest", "pebble"],
    ["docker.io/ai/pebble:V1", "pebble:V1"],
    ["docker.io/me/pebble:latest", "me/pebble"],
    ["docker.io/ai/a/b:latest", "ai/a/b"],
    ["docker.io/me.x/y:latest", "docker.io/me.x/y"],
    ["huggingface.co/org/m:Q8_0", "huggingface.co/org/m:Q8_0"],
    [`docker.io/ai/pebble:latest@${DIGEST}`, `pebble:latest@${DIGEST}`],
    ["<none>", "<none>"],
  ])("reference: %s is shown as %s", (canonical, shown) => {
    expect(displayReference(canonical)).toBe(shown);
  });

  test("reference: what is shown names the same model", () => {
    fc.assert(
      fc.property(anyName(), (text) => {
        const canonical = formatReference(parseReference(text));
        return formatReference(parseReference(displayReference(canonical))) === canonical;
      }),
    );
  });
});

describe("looksLikeId", () => {
  test.each([
    ["0123456789ab", true],
    [DIGEST, true],
    [DIGEST.slice(7), true],
    [DIGEST.slice(0, 19), true],
    ["0123456789abc", false],
    ["0123456789AB", false],
    ["sha256:012", false],
    ["pebble", false],
  ])("reference: whether %p may be a digest is %p", (text, answer) => {
    expect(looksLikeId(text)).toBe(answer);
  });
});

function anyName(): fc.Arbitrary<string> {
  const component = fc.stringMatching(/^[a-z0-9]{1,5}([._-][a-z0-9]{1,4})?$/);
  const registry = fc.constantFrom(
    "",
    "docker.io/",
    "hf.co/",
    "localhost:5000/",
    "r.example.com/",
    "ai/",
  );
  const tag = fc.constantFrom("", ":latest", ":V1.0_x");
  return fc
    .tuple(registry, fc.array(component, { minLength: 1, maxLength: 3 }), tag)
    .map(([host, components, suffix]) => `${host}${components.join("/")}${suffix}`);
}

describe("parseRegistryHost", () => {
  test.each([
    ["ghcr.io", "ghcr.io"],
    [" GHCR.io ", "ghcr.io"],
    ["https://gcr.io", "gcr.io"],
    ["https://registry.example.com:5000/v2/", "registry.example.com:5000"],
    ["https://index.docker.io/v1/", "docker.io"],
  ])("%s is %s", (text, host) => {
    expect(parseRegistryHost(text)).toBe(host);
  });

  test.each(["", "https://", "ghcr.io/me", "me@ghcr.io", "ftp://ghcr.io", "ghcr.io?x", "a b"])(
    "refuses %j",
    (text) => {
      expect(() => parseRegistryHost(text)).toThrow("as a registry");
    },
  );
});
