import type { InstallRequest } from "../api/engines.ts";
import { connect } from "../client/connect.ts";
import { printJson } from "../terminal/json.ts";
import { print } from "../terminal/output.ts";
import { createProgress } from "../terminal/progress.ts";
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
      options: ["auto", "none", "cuda", "rocm", "vulkan", "metal"],
      description: "The variant (what fits this machine unless given)",
    },
    source: {
      type: "string",
      valueHint: "NAME",
      description:
        "Where to get it: path, github, oci or apt (the first that answers unless given); TUG_ENGINE_IMAGE names an image of your own for oci",
    },
    version: {
      type: "string",
      valueHint: "V",
      description: "Which version (the one known to work unless given)",
    },
    json: JSON_FLAG,
  },
  async run({ args, config, paths, signal }) {
    const client = await connect("local", { config, paths, signal });
    using progress = createProgress({ quiet: args.json === true });
    const request: InstallRequest = {
      ...(args.backend === undefined ? {} : { backend: args.backend }),
      ...(args.gpu === undefined ? {} : { gpu: args.gpu as NonNullable<InstallRequest["gpu"]> }),
      ...(args.source === undefined ? {} : { source: args.source }),
      ...(args.version === undefined ? {} : { version: args.version }),
    };
    const engine = await client.install(request, { signal, onProgress: progress.listener });
    progress.finish();
    if (args.json === true) return await printJson(engine);
    await print(
      `${engine.backend} ${engine.version} (${engine.variant}, from ${engine.source}) is ready.\n`,
    );
  },
});
