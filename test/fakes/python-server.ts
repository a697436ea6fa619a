/** What the stand-ins of vLLM and SGLang serve once their arguments were good: OpenAI's API, as far as workers use it. */

export interface ServedModel {
  readonly names: readonly string[];
  readonly contextTokens: number;
  /** It can be put to sleep; `false`: it never wakes. */
  readonly wakes?: boolean | undefined;
  readonly listen: { readonly unix: string } | { readonly hostname: string; readonly port: number };
}

export const ANSWER = ["The ", "capital ", "is ", "Paris."];

export function serveOpenAi(model: ServedModel): void {
  let isAsleep = false;
  const fetch = (request: Request): Response | Promise<Response> => {
    const { pathname } = new URL(request.url);
    if (model.wakes !== undefined && request.method === "POST") {
      if (pathname === "/sleep" && !isAsleep) return ((isAsleep = true), ok());
      if (pathname === "/wake_up" && isAsleep) {
        isAsleep = !model.wakes;
        return isAsleep ? new Response(null, { status: 500 }) : ok();
      }
      // Whoever asks at the wrong time has lost track of it.
      if (isAsleep || pathname === "/wake_up") process.exit(9);
    }
    return answer(request, model);
  };
  Bun.serve({ ...model.listen, fetch });
}

// --- internal ---

function ok(): Response {
  return Response.json({ status: "done" });
}

async function answer(request: Request, model: ServedModel): Promise<Response> {
  switch (new URL(request.url).pathname) {
    case "/health":
      return new Response(null);
    case "/metrics":
      return new Response("# TYPE engine_requests gauge\nengine_requests 0\n");
    case "/v1/models":
      return Response.json({
        object: "list",
        data: model.names.map((id) => ({ id, max_model_len: model.contextTokens })),
      });
    case "/v1/chat/completions":
      return chat((await request.json()) as ChatBody, model);
    default:
      return Response.json({ detail: "Not Found" }, { status: 404 });
  }
}

interface ChatBody {
  readonly model?: string;
  readonly stream?: boolean;
}

function chat({ model: named = "", stream }: ChatBody, { names }: ServedModel): Response {
  if (!names.includes(named)) {
    const message = `The model \`${named}\` does not exist.`;
    return Response.json({ error: { message, type: "NotFoundError", code: 404 } }, { status: 404 });
  }
  const [model = ""] = names;
  if (stream === true) return new Response(events(model), { headers: EVENT_STREAM });
  const message = { role: "assistant", content: ANSWER.join("") };
  return Response.json({ model, choices: [{ index: 0, message, finish_reason: "stop" }] });
}

const EVENT_STREAM = { "content-type": "text/event-stream" };

function events(model: string): string {
  const chunks = ANSWER.map((content) => ({
    model,
    choices: [{ index: 0, delta: { content }, finish_reason: null }],
  }));
  return [...chunks.map((chunk) => JSON.stringify(chunk)), "[DONE]"]
    .map((data) => `data: ${data}\n\n`)
    .join("");
}
