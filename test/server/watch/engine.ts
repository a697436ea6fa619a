/** An engine's metrics on a unix socket. */
import { join } from "node:path";
import { tempDir } from "../../helpers/temp-dir.ts";

export interface MetricsEngine extends AsyncDisposable {
  readonly socket: string;
}

export async function serveMetrics(
  answer: (request: Request) => Response | Promise<Response>,
): Promise<MetricsEngine> {
  const directory = await tempDir();
  const socket = join(directory.path, "e.sock");
  const server = Bun.serve({ unix: socket, fetch: answer });
  return {
    socket,
    async [Symbol.asyncDispose]() {
      await server.stop(true);
      await directory[Symbol.asyncDispose]();
    },
  };
}

export const LLAMA_METRICS = `# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed.
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 12
# HELP llamacpp:requests_processing Number of requests processing.
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 0
`;
