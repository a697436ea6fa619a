import { pingRunner } from "../client/connect.ts";
import { printJson } from "../terminal/json.ts";
import { print } from "../terminal/output.ts";
import { VERSION } from "../version.ts";
import { JSON_FLAG, defineCommand } from "./command.ts";

export const command = defineCommand({
  args: { json: JSON_FLAG },
  async run({ args, config, paths, signal }) {
    const runner = (await pingRunner({ config, paths, signal }))?.version ?? null;
    const facts = {
      client: { version: VERSION, os: process.platform, arch: process.arch, bun: Bun.version },
      runner: runner === null ? null : { version: runner },
    };
    if (args.json === true) return printJson(facts);
    await print(
      `Client: ${VERSION} (${process.platform}/${process.arch}, Bun ${Bun.version})\nRunner: ${runner ?? "not running"}\n`,
    );
  },
});
