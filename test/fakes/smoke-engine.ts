/**
 * Stands for llama-server in smoke tests: `bun smoke-engine.ts <behaviour> …llama-server arguments`.
 *
 * Behaviours: paris, berlin, silent (an empty answer), crash (before readiness), die (while answering), mute (never
 * ready).
 */
const [behaviour, ...args] = process.argv.slice(2);
const socket = args[args.indexOf("--host") + 1] ?? "";
const answers: Record<string, string> = { paris: "Paris.", berlin: "Berlin.", silent: "" };

if (behaviour === "crash") {
  process.stderr.write("0.00.1 E llama_model_load: error loading model: the fake is broken\n");
  process.exit(1);
}

Bun.serve({
  unix: socket,
  fetch: (request) => {
    if (behaviour === "mute") return new Response(null, { status: 503 });
    if (new URL(request.url).pathname === "/health") return Response.json({ status: "ok" });
    if (behaviour === "die") process.kill(process.pid, "SIGKILL");
    return Response.json({ choices: [{ message: { content: answers[behaviour ?? ""] } }] });
  },
});
