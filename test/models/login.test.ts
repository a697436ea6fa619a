import { describe, expect, test } from "bun:test";
import { describeLogout } from "../../src/commands/logout.ts";
import { logout } from "../../src/models/login.ts";
import { credentialsOf, ann, noSignal as signal } from "../oci/registry-client.ts";

describe("logout", () => {
  test("says where a credential was, and where there is another one", async () => {
    const store = credentialsOf({ "docker.io": ann({ source: "~/.docker/config.json" }) });
    const credentials = { ...store, remove: async () => "~/.config/tug/auth.json" };

    expect(await logout({ credentials }, "index.docker.io", { signal })).toEqual({
      registry: "docker.io",
      removed_from: "~/.config/tug/auth.json",
      remains_in: "~/.docker/config.json",
    });
  });

  test("says that there is none any more", async () => {
    expect(await logout({ credentials: credentialsOf() }, "ghcr.io", { signal })).toEqual({
      registry: "ghcr.io",
      removed_from: null,
      remains_in: null,
    });
  });

  const FILE = "~/.config/tug/auth.json";
  test.each([
    [null, null, "You were not logged in to ghcr.io."],
    [FILE, null, `Logged out of ghcr.io; removed from ${FILE}.`],
    [
      FILE,
      "~/.docker/config.json",
      `Logged out of ghcr.io; removed from ${FILE}.\nThere is a credential for ghcr.io in ~/.docker/config.json still, which is used from now on: \`docker logout ghcr.io\` removes it.`,
    ],
    [
      null,
      "DOCKER_USERNAME",
      "There is a credential for ghcr.io in DOCKER_USERNAME still, which is used from now on: unset it.",
    ],
  ])("removed from %p, still in %p", (removed_from, remains_in, text) => {
    expect(describeLogout({ registry: "ghcr.io", removed_from, remains_in })).toBe(text);
  });

  test("Docker's own command calls Docker Hub by no name", () => {
    const result = { registry: "docker.io", removed_from: null, remains_in: "~/x" };

    expect(describeLogout(result)).toContain("`docker logout` removes it");
  });
});
