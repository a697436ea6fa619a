import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { tempDir } from "../helpers/temp-dir.ts";

/** Whether `smallDisk` works here: it takes Linux, root, and a container that may mount. */
export const CAN_MOUNT =
  process.platform === "linux" && process.getuid?.() === 0 && (await tryMount());

/** Mounts a disk of 4 MiB below `directory`. It is unmounted when the scope ends. */
export async function smallDisk(
  directory: string,
): Promise<AsyncDisposable & { readonly path: string }> {
  const path = join(directory, "small-disk");
  await mkdir(path);
  await run("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", path);
  return { path, [Symbol.asyncDispose]: () => run("umount", path) };
}

async function tryMount(): Promise<boolean> {
  await using directory = await tempDir();
  try {
    await using _disk = await smallDisk(directory.path);
    return true;
  } catch {
    return false;
  }
}

async function run(...command: readonly string[]): Promise<void> {
  const child = Bun.spawn([...command], { stderr: "pipe" });
  if ((await child.exited) !== 0)
    throw new Error(`${command.join(" ")}: ${await child.stderr.text()}`);
}
