import { homedir } from "node:os";
import { resolve } from "node:path";
import { ENGINE_GPUS, type InstallRequest } from "../api/engines.ts";
import { connect } from "../client/connect.ts";
import { printJson } from "../terminal/json.ts";
import { print } from "../terminal/output.ts";
import { createProgress } from "../terminal/progress.ts";
import { stripControls } from "../terminal/style.ts";
import { AppError } from "../errors.ts";
import { JSON_FLAG, defineCommand } from "./command.ts";

export const command = defineCommand({
  args: {
    backend: {
      type: "string",
      valueHint: "NAME",
      description: "The engine (llama.cpp unless given)",
    },
    gpu: {
      type: "string",
      options: ENGINE_GPUS,
      description: "The variant (what fits this machine unless given)",
    },
    source: {
      type: "string",
      valueHint: "NAME",
      description:
        "Where to get it: path, github, oci, apt or pypi (the first that answers unless given); TUG_ENGINE_IMAGE names an image of your own for oci",
    },
    version: {
      type: "string",
      valueHint: "V",
      description: "Which version (the one in config.toml or known to work unless given)",
    },
    python: {
      type: "string",
      valueHint: "PATH",
      description: "Use the Python of an environment of your own, which has the engine's package",
    },
    json: JSON_FLAG,
  },
  async run({ args, config, paths, signal }) {
    const client = await connect("local", { config, paths, signal });
    using progress = createProgress({ quiet: args.json === true });
    const request: InstallRequest = {
      ...(args.backend === undefined ? {} : { backend: args.backend }),
      ...(args.gpu === undefined ? {} : { gpu: args.gpu as (typeof ENGINE_GPUS)[number] }),
      ...(args.source === undefined ? {} : { source: args.source }),
      ...(args.version === undefined ? {} : { version: args.version }),
      ...(args.python === undefined ? {} : { python: toAbsolute(args.python) }),
    };
    const engine = await client.install(request, { signal, onProgress: progress.listener });
    progress.finish();
    if (args.json === true) return await printJson(engine);
    if (engine.reason !== undefined) {
      process.stderr.write(stripControls(`chosen: ${engine.reason}\n`));
    }
    await print(
      `${engine.backend} ${engine.version} (${engine.variant}, from ${engine.source}) is ready.\n`,
    );
  },
});

/** As the shell means it, which leaves `--python=~/…` as it is. @throws usage */
export function toAbsolute(path: string): string {
  if (path.trim() === "") {
    throw new AppError("usage", "`--python` names no file", {
      hint: "Write `--python PATH`, as in `--python .venv/bin/python`.",
    });
  }
  return resolve(path.startsWith("~/") ? `${homedir()}${path.slice(1)}` : path);
}
