/**
 * What NVIDIA's images do, as far as Tug can tell: OpenAI's API on port 8000, health under `/v1/health/ready`, one name that
 * it answers to. Compiled into an executable and packed into an image by `test/helpers/nim-image.ts`. Its first argument
 * is how it behaves: `well`, `exits` or `mute`.
 */
const MODEL = "meta/tiny";
const [behaviour = "well"] = process.argv.slice(2);

process.on("SIGTERM", () => {
  console.log("asked to end");
  process.exit(0);
});

if (behaviour === "exits") {
  console.error("ValueError: no compatible profiles found");
  process.exit(3);
}

const text = (messages: readonly { content: string }[]): string =>
  `turn ${messages.length}: ${messages.at(-1)?.content ?? ""}, limit ${process.env["NIM_MAX_MODEL_LEN"] ?? "none"}, ` +
  `profile ${process.env["NIM_MODEL_PROFILE"] ?? "none"}, key ${process.env["NGC_API_KEY"] ?? "none"}`;

function event(delta: object, finish_reason: string | null): string {
  const choices = [{ index: 0, delta, finish_reason }];
  return `data: ${JSON.stringify({ object: "chat.completion.chunk", model: MODEL, choices })}\n\n`;
}

async function* words(content: string, isEndless: boolean): AsyncGenerator<string> {
  const all = content.split(/(?<= )/);
  try {
    const turns = isEndless ? Number.POSITIVE_INFINITY : all.length;
    for (let at = 0; at < turns; at += 1) {
      yield event({ content: all[at % all.length] }, null);
      await Bun.sleep(isEndless ? 10 : 0);
    }
    yield event({}, "stop");
    yield "data: [DONE]\n\n";
  } finally {
    console.log("an answer has ended");
  }
}

async function answer(request: Request): Promise<Response> {
  const { pathname } = new URL(request.url);
  if (pathname === "/v1/health/ready") {
    return Response.json({ message: "ready" }, { status: behaviour === "mute" ? 503 : 200 });
  }
  if (pathname === "/v1/models")
    return Response.json({ data: [{ id: MODEL, max_model_len: 2048 }] });
  if (pathname === "/v1/metrics") return new Response("nim_requests_total 1\n");
  const body = (await request.json()) as {
    model: string;
    stream?: boolean;
    messages: { content: string }[];
  };
  if (body.model !== MODEL) {
    return Response.json({ message: `the model ${body.model} does not exist` }, { status: 404 });
  }
  if (pathname === "/v1/embeddings") {
    const data = [{ object: "embedding", index: 0, embedding: [1, 2, 3] }];
    return Response.json({ object: "list", model: MODEL, data, usage: { prompt_tokens: 1 } });
  }
  const content = text(body.messages);
  if (body.stream !== true) {
    const message = { role: "assistant", content };
    const choices = [{ index: 0, message, finish_reason: "stop" }];
    return Response.json({ object: "chat.completion", model: MODEL, choices });
  }
  const isEndless = body.messages.at(-1)?.content === "for ever";
  return new Response(words(content, isEndless), {
    headers: { "content-type": "text/event-stream" },
  });
}

console.log(`serving ${MODEL} as user ${process.getuid?.()}`);
if (behaviour === "mute") console.log("reading weights");
Bun.serve({ port: 8000, idleTimeout: 0, fetch: answer });
