/**
 * What Docker's CLI makes of statuses: it shows what is answered with most of them, but takes any 503 for "no runner is
 * running" and drops what it says, and of recorded requests shows the body of a 404 alone.
 *
 * @see https://github.com/docker/model-runner cmd/cli/desktop/desktop.go doRequestWithAuthContext, Requests
 */
import type { AppError, ErrorCode } from "../errors.ts";

/** They do mean that. */
const NOT_RUNNING: ReadonlySet<ErrorCode> = new Set(["runner_unreachable", "shutting_down"]);

export function isDockerCli({ headers }: Request): boolean {
  return headers.get("user-agent")?.startsWith("docker-model-cli/") === true;
}

/** The same answer with a status whose body is shown. */
export function shownByDockerCli(response: Response, error: AppError, request: Request): Response {
  if (response.status !== 503 || NOT_RUNNING.has(error.code) || !isDockerCli(request)) {
    return response;
  }
  return new Response(response.body, { status: 500, headers: response.headers });
}
