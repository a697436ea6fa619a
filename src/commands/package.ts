import { statSync } from "node:fs";
import { resolve } from "node:path";
import type { PackageRequest } from "../api/models.ts";
import { connect } from "../client/connect.ts";
import { AppError } from "../errors.ts";
import { displayReference } from "../oci/reference.ts";
import { printJson } from "../terminal/json.ts";
import { print } from "../terminal/output.ts";
import { createProgress } from "../terminal/progress.ts";
import { type ArgumentValues, JSON_FLAG, defineCommand } from "./command.ts";
import { directoryFormat } from "./package-path.ts";

const ARGS = {
  model: {
    type: "positional",
    description: "Name of the model, such as `me/model:v1`; or a path, with the name after it",
  },
  name: {
    type: "positional",
    required: false,
    description: "Name of the model, where a path stands before it",
  },
  gguf: {
    type: "string",
    valueHint: "FILE",
    description: "The weights; of a sharded model any one of its files",
  },
  "safetensors-dir": {
    type: "string",
    valueHint: "DIR",
    description: "A directory with weights, of which every file is packaged",
  },
  "onnx-dir": {
    type: "string",
    valueHint: "DIR",
    description: "A directory with an ONNX model: `model.onnx`, what it needs, and its tokenizer",
  },
  "pytorch-dir": {
    type: "string",
    valueHint: "DIR",
    description:
      "A directory with a PyTorch checkpoint (pickles): it runs only where that is allowed",
  },
  dduf: { type: "string", valueHint: "FILE", description: "A diffusion pipeline in one file" },
  file: {
    type: "string",
    valueHint: "FILE",
    multiple: true,
    description: "A file of another format, which --format-name names; the first is the main one",
  },
  "format-name": {
    type: "string",
    valueHint: "NAME",
    description: "What engines call that format, such as one of your own",
  },
  from: {
    type: "string",
    valueHint: "MODEL",
    description: "A model of the store, to make a variant of",
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
    description: "Kind of artifact (docker unless given; with --from the source's)",
  },
  created: {
    type: "string",
    valueHint: "TIME",
    description:
      "Creation time (RFC 3339) to record; fixed unless given, for a reproducible digest",
  },
  annotation: {
    type: "string",
    valueHint: "KEY=VALUE",
    multiple: true,
    description: "An annotation of the manifest",
  },
  label: {
    type: "string",
    valueHint: "KEY=VALUE",
    multiple: true,
    description: "The same as --annotation",
  },
  link: {
    type: "boolean",
    description:
      "Hard-link the weights into the store instead of copying them; the file becomes read-only",
  },
  push: {
    type: "boolean",
    description: "Push it to its registry, straight from the files; nothing is stored here",
  },
  keep: { type: "boolean", description: "With --push: store it here as well" },
  insecure: {
    type: "boolean",
    description: "The registry may be on plain http, or have any certificate",
  },
  quiet: { type: "boolean", alias: "q", description: "Show no progress" },
  json: JSON_FLAG,
} as const;

export const command = defineCommand({
  args: ARGS,
  details: [
    "  tug package --gguf model.gguf me/model           into the store",
    "  tug package --gguf model.gguf --push HOST/me/m   straight into a registry",
    "  tug package ./directory me/model                 every file of a directory",
    "  tug package --file net.bin --format-name echo me/model   for an engine of config.toml",
    "  tug package --from me/model --context-size 8192 me/model:8k",
  ].join("\n"),
  /** Always in this process: the files are on this machine, and no runner is needed. */
  async run({ args, config, paths, signal }) {
    const request = toRequest(args);
    const client = await connect("local", { config, paths, signal });
    using progress = createProgress({ quiet: args.json === true || args.quiet === true });
    const result = await client.package(request, { signal, onProgress: progress.listener });
    progress.finish();
    if (args.json === true) return await printJson(result);
    // What was pushed is named in full: it is to be found from elsewhere.
    const name = request.push === true ? result.reference : displayReference(result.reference);
    await print(`${name}@${result.id}\n`);
  },
});

/** Paths become absolute here: the API knows no working directory. */
export function toRequest(args: ArgumentValues<typeof ARGS>): PackageRequest {
  const annotations = parseAnnotations([...args.annotation, ...args.label]);
  return {
    ...toSource(args),
    ...(args.license.length === 0 ? {} : { licenses: args.license.map((file) => resolve(file)) }),
    ...(args["context-size"] === undefined
      ? {}
      : { context_size: parseContext(args["context-size"]) }),
    ...(args["chat-template"] === undefined
      ? {}
      : { chat_template: resolve(args["chat-template"]) }),
    ...(args.mmproj === undefined ? {} : { mmproj: resolve(args.mmproj) }),
    ...(args.format === undefined ? {} : { format: args.format as "docker" | "cncf" }),
    ...(args["format-name"] === undefined ? {} : { format_name: args["format-name"] }),
    ...(args.created === undefined ? {} : { created: args.created }),
    ...(Object.keys(annotations).length === 0 ? {} : { annotations }),
    ...toSwitches(args),
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

/**
 * @param words `KEY=VALUE`; the value may be empty or have more equals signs
 * @throws usage, also if one key has two values
 */
export function parseAnnotations(words: readonly string[]): Record<string, string> {
  const annotations = new Map<string, string>();
  for (const word of words) {
    const equals = word.indexOf("=");
    if (equals < 1) {
      throw new AppError("usage", `\`${word.slice(0, 200)}\` is not an annotation`, {
        hint: "Write `--annotation KEY=VALUE`.",
      });
    }
    const key = word.slice(0, equals);
    const value = word.slice(equals + 1);
    if ((annotations.get(key) ?? value) !== value) {
      throw new AppError("usage", `the annotation \`${key.slice(0, 200)}\` is given twice`, {
        hint: "Give it once.",
      });
    }
    annotations.set(key, value);
  }
  return Object.fromEntries(annotations);
}

// --- internal ---

type Values = ArgumentValues<typeof ARGS>;
type Source = Pick<
  PackageRequest,
  "model" | "gguf" | "safetensors_dir" | "onnx_dir" | "pytorch_dir" | "dduf" | "files" | "from"
>;

/** Flags that name a path, and what they are called in a request. */
const PATHS = [
  ["gguf", "gguf"],
  ["safetensors-dir", "safetensors_dir"],
  ["onnx-dir", "onnx_dir"],
  ["pytorch-dir", "pytorch_dir"],
  ["dduf", "dduf"],
] as const;
const FLAGS = [...PATHS.map(([flag]) => flag), "from"] as const;

function toSource(args: Values): Source {
  const given = FLAGS.filter((flag) => args[flag] !== undefined);
  const sources = [
    ...given.map((flag) => `\`--${flag}\``),
    ...(args.file.length === 0 ? [] : ["`--file`"]),
    ...(args.name === undefined ? [] : [`the path \`${args.model}\``]),
  ];
  if (sources.length === 0) {
    throw new AppError("usage", "say what to package", {
      hint: "Give one of `--gguf FILE`, `--safetensors-dir DIR`, `--onnx-dir DIR`, `--pytorch-dir DIR`, `--dduf FILE`, `--file FILE` and `--from MODEL`, or a path before the name.",
    });
  }
  if (sources.length > 1) {
    throw new AppError("usage", `${sources.join(" and ")} exclude each other`, {
      hint: "Give one of them.",
    });
  }
  if (args.name !== undefined) {
    const isNamed = args["format-name"] !== undefined;
    return { ...toPathSource(resolve(args.model), isNamed), model: args.name };
  }
  const paths = PATHS.flatMap(([flag, member]) => {
    const path = args[flag];
    return path === undefined ? [] : [[member, resolve(path)] as const];
  });
  return {
    model: args.model,
    ...Object.fromEntries(paths),
    ...(args.file.length === 0 ? {} : { files: args.file.map((file) => resolve(file)) }),
    ...(args.from === undefined ? {} : { from: args.from }),
  };
}

/**
 * A directory, a DDUF by its name, or else a GGUF: whoever reads it says if it is none.
 *
 * @param isNamed its format is
 */
function toPathSource(path: string, isNamed: boolean): Omit<Source, "model"> {
  if (isNamed) return { files: [path] };
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory() === true)
    return { [directoryFormat(path)]: path };
  return path.toLowerCase().endsWith(".dduf") ? { dduf: path } : { gguf: path };
}

function toSwitches({ link, push, keep, insecure }: Values): Partial<PackageRequest> {
  if (keep === true && push !== true) {
    throw new AppError("usage", "`--keep` is for `--push`: without it the model is stored anyway", {
      hint: "Leave out `--keep`, or add `--push`.",
    });
  }
  return {
    ...(link === true ? { link } : {}),
    ...(push === true ? { push } : {}),
    ...(keep === true ? { keep } : {}),
    ...(insecure === true ? { insecure } : {}),
  };
}
