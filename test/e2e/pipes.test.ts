/** What scripts do with the output: pipes whose reader leaves before all is said. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { tugBinary } from "../helpers/binary.ts";
import { PEBBLE } from "../helpers/pebble.ts";
import { isWindows, testIf } from "../helpers/test-if.ts";
import { type TugHome, tugHome } from "../helpers/tug-home.ts";
import { cleanEnvironment } from "../helpers/run-cli.ts";

setDefaultTimeout(60_000);

const onUnix = testIf(!isWindows, "there is no bash here");

/** Both sides of a pipe in bash, and how the first one ended. */
async function piped({ env }: TugHome, words: string, reader: string): Promise<[string, number]> {
  const script = `"${await tugBinary()}" ${words} | ${reader}; exit "\${PIPESTATUS[0]}"`;
  const child = Bun.spawn(["bash", "-c", script], {
    env: { ...cleanEnvironment(), ...env },
    stdin: "ignore",
    stderr: "inherit",
  });
  return [await child.stdout.text(), await child.exited];
}

onUnix("a list whose reader has seen enough is no failure", async () => {
  await using home = await tugHome();

  expect((await piped(home, "--help", "true"))[1]).toBe(0);
  expect((await piped(home, "list", "true"))[1]).toBe(0);
});

onUnix("a pull whose reader leaves ends, and does not say that it is done", async () => {
  await using home = await tugHome();
  // Never the whole file: only whoever notices that nobody listens comes to an end.
  using server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    idleTimeout: 0,
    fetch: () => new Response(slowly(), { headers: { "content-length": "3000768" } }),
  });

  const [first, exitCode] = await piped(home, `pull --json ${server.url.href}m.gguf`, "head -n 1");

  expect(JSON.parse(first)).toMatchObject({ type: "progress" });
  expect(exitCode).toBe(130);
});

onUnix("an archive that nobody takes is no success", async () => {
  await using home = await tugHome();
  await home.tug(["package", "--gguf", PEBBLE, "me/m"]);

  expect((await piped(home, "export me/m", "head -c 100 >/dev/null"))[1]).toBe(130);
});

test("mistakes are said in the form that was asked for", async () => {
  await using home = await tugHome();

  const { stdout, stderr, exitCode } = await home.tug([
    "pull",
    "--json",
    "m",
    "--connections",
    "0",
  ]);

  expect(JSON.parse(stdout)).toMatchObject({ type: "error", error: { code: "usage" } });
  expect([stdout.split("\n").length, stderr, exitCode]).toEqual([2, "", 2]);
});

// --- internal ---

function slowly(): ReadableStream<Uint8Array> {
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      controller.enqueue(new Uint8Array(1024));
      await Bun.sleep(20);
    },
  });
}
