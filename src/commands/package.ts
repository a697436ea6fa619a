import { resolve } from "node:path";
import type { PackageRequest } from "../api/models.ts";
import { connect } from "../client/connect.ts";
import { AppError } from "../errors.ts";
import { displayReference } from "../oci/reference.ts";
import { printJson } from "../terminal/json.ts";
import { print } from "../terminal/output.ts";
import { createProgress } from "../terminal/progress.ts";
import { type ArgumentValues, JSON_FLAG, defineCommand } from "./command.ts";

const ARGS = {
  model: { type: "positional", description: "Name of the model, such as `me/model:v1`" },
  gguf: {
    type: "string",
    valueHint: "FILE",
    description: "The weights; of a sharded model any one of its files",
  },
  license: {
    type: "string",
    alias: "l",
    valueHint: "FILE",
    multiple: true,
    description: "A licence text",
  },
  "context-size": {
    type: "string",
    valueHint: "N",
    description: "Context to run it with by default, in tokens",
  },
  "chat-template": {
    type: "string",
    valueHint: "FILE",
    description: "A Jinja template that replaces the packaged one",
  },
  mmproj: { type: "string", valueHint: "FILE", description: "A multimodal projector (GGUF)" },
  format: {
    type: "string",
    options: ["docker", "cncf"],
    description: "Kind of artifact (docker unless given)",
  },
  created: {
    type: "string",
    valueHint: "TIME",
    description:
      "Creation time (RFC 3339) to record; fixed unless given, for a reproducible digest",
  },
  link: {
    type: "boolean",
    description:
      "Hard-link the weights into the store instead of copying them; the file becomes read-only",
  },
  json: JSON_FLAG,
} as const;

export const command = defineCommand({
  args: ARGS,
  /** Always in this process: the files are on this machine, and no runner is needed. */
  async run({ args, config, paths, signal }) {
    const request = toRequest(args);
    const client = await connect("local", { config, paths, signal });
    using progress = createProgress({ quiet: args.json === true });
    const result = await client.package(request, { signal, onProgress: progress.listener });
    progress.finish();
    if (args.json === true) return await printJson(result);
    await print(`${displayReference(result.reference)}@${result.id}\n`);
  },
});

/** Paths become absolute here: the API knows no working directory. */
export function toRequest(args: ArgumentValues<typeof ARGS>): PackageRequest {
  if (args.gguf === undefined) {
    throw new AppError("usage", "say what to package", {
      hint: "Give the weights with `--gguf FILE`.",
    });
  }
  return {
    model: args.model,
    gguf: resolve(args.gguf),
    licenses: args.license.map((file) => resolve(file)),
    ...(args["context-size"] === undefined
      ? {}
      : { context_size: parseContext(args["context-size"]) }),
    ...(args["chat-template"] === undefined
      ? {}
      : { chat_template: resolve(args["chat-template"]) }),
    ...(args.mmproj === undefined ? {} : { mmproj: resolve(args.mmproj) }),
    ...(args.format === undefined ? {} : { format: args.format as "docker" | "cncf" }),
    ...(args.created === undefined ? {} : { created: args.created }),
    ...(args.link === true ? { link: true } : {}),
  };
}

/** Tokens as they are written into an artifact: an int32, or -1 for the model's own maximum. */
export function parseContext(text: string): number {
  const tokens = /^(-1|\d{1,10})$/.test(text) ? Number(text) : 0;
  if (tokens === 0 || tokens > 2_147_483_647) {
    throw new AppError("usage", `\`${text}\` is not a context size`, {
      hint: "Give a number of tokens above 0, or -1 for the model's own maximum.",
    });
  }
  return tokens;
}
