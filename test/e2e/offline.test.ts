import { expect, setDefaultTimeout, test } from "bun:test";
import type { ErrorObject } from "../../src/errors.ts";
import { startFakeRegistry } from "../fakes/registry.ts";
import { tugBinary } from "../helpers/binary.ts";
import { PEBBLE, QUESTION } from "../helpers/pebble.ts";
import { cleanEnvironment } from "../helpers/run-cli.ts";
import { strace, traceConnects, type Traced } from "../helpers/strace.ts";
import { describeIf } from "../helpers/test-if.ts";
import { type TugHome, sharedTugHome, tugHome } from "../helpers/tug-home.ts";

setDefaultTimeout(90_000);

describeIf(strace !== null, "there is no strace here")("connections to the network", () => {
  const runner = sharedTugHome();

  test("are seen by this test where there are some", async () => {
    await using registry = await startFakeRegistry();
    await using home = await tugHome();

    const { connects } = await trace(home, ["pull", `${registry.host}/me/absent:1`]);

    expect(connects.length).toBeGreaterThan(0);
    expect(connects[0]).toContain(String(registry.port));
  });

  test.each([
    ["pull", ["pull", "REGISTRY/me/m:1"]],
    ["pull from Docker Hub", ["pull", "ai/smollm2"]],
    ["pull from Hugging Face", ["pull", "hf.co/org/repo"]],
    ["pull from the Ollama library", ["pull", "ollama.com/library/smollm2"]],
    ["pull of a URL", ["pull", "https://example.com/m.gguf"]],
    ["push", ["push", "me/here", "REGISTRY/me/m:1"]],
    ["package --push", ["package", "--gguf", PEBBLE, "--push", "REGISTRY/me/m:1"]],
    ["copy", ["copy", "REGISTRY/me/m:1", "REGISTRY/me/n:1"]],
    ["search", ["search", "smollm"]],
  ])("are none under --offline: %s", async (_, words) => {
    await using registry = await startFakeRegistry();
    await using home = await tugHome();
    await home.tug(["package", "--gguf", PEBBLE, "me/here"]);
    const named = words.map((word) => word.replace("REGISTRY", registry.host));

    const traced = await trace(home, ["--offline", ...named]);

    expect(traced).toMatchObject({ exitCode: 1, connects: [] });
    expect(traced.stderr).toContain("offline");
    expect(registry.connections()).toBe(0);
  });

  test("are none under TUG_OFFLINE, and `--json` says `offline`", async () => {
    await using home = await tugHome({ env: { TUG_OFFLINE: "1" } });

    const traced = await trace(home, ["pull", "ai/smollm2", "--json"]);

    expect(traced).toMatchObject({ exitCode: 1, connects: [] });
    const last = traced.stdout.trim().split("\n").at(-1) ?? "";
    expect((JSON.parse(last) as { error: ErrorObject }).error.code).toBe("offline");
  });

  test("are none in commands about what is here", async () => {
    await using home = await tugHome();
    await home.tug(["package", "--gguf", PEBBLE, "me/here"]);
    const commands = [["list"], ["inspect", "me/here"], ["status"], ["df"], ["verify"], ["--help"]];

    const traces = [];
    for (const words of commands) traces.push(await trace(home, words));

    expect(traces.flatMap(({ connects }) => connects)).toEqual([]);
  });

  test("are none under --offline in `run` of a model that is not here", async () => {
    await using home = await tugHome();

    const traced = await traceAndStop(home, ["--offline", "run", "me/absent", "hi"]);

    expect(traced).toMatchObject({ exitCode: 1, stdout: "", connects: [] });
    expect(traced.stderr).toContain("offline");
  });

  test("are none in `run` of a model that is here, the runner and its engine included", async () => {
    const home = runner();
    await home.tug(["package", "--gguf", PEBBLE, "me/here"]);
    await home.tug(["stop-runner"]);

    const traced = await traceAndStop(home, ["run", "me/here", QUESTION, "--temperature", "0"]);

    expect(traced.stdout).toContain("The capital of France is Paris.");
    expect(traced).toMatchObject({ exitCode: 0, connects: [] });
  });
});

async function trace(home: TugHome, words: readonly string[]): Promise<Traced> {
  return traceConnects([await tugBinary(), ...words], environment(home));
}

/** The tracer waits for all that was started: the runner has to be stopped by what is traced. */
async function traceAndStop(home: TugHome, words: readonly string[]): Promise<Traced> {
  const script = `"$0" "$@"; code=$?; "$0" stop-runner >&2; exit $code`;
  return traceConnects(["sh", "-c", script, await tugBinary(), ...words], environment(home));
}

function environment(home: TugHome): Record<string, string> {
  return { ...cleanEnvironment(), ...home.env };
}
