import type { Browser, Page } from "puppeteer-core";

/** Debian's; `bun run verify` installs it on Linux. */
export const chromium = Bun.which("chromium");

const LAUNCH_TIMEOUT_MS = 60_000;

/** A browser that resolves all names below `example` to 127.0.0.1, as a hostile name server would. */
export async function launchChromium(): Promise<Browser> {
  const { launch } = await import("puppeteer-core");
  return launch({
    executablePath: chromium ?? "chromium",
    timeout: LAUNCH_TIMEOUT_MS,
    args: [
      // Root, as in containers, has no sandbox of its own.
      "--no-sandbox",
      "--disable-dev-shm-usage",
      "--disable-gpu",
      "--no-first-run",
      "--disable-background-networking",
      "--host-resolver-rules=MAP *.example 127.0.0.1",
    ],
  });
}

/** Pages of one origin. */
export interface Site extends AsyncDisposable {
  readonly port: number;
  /** @param host under which the browser opens it */
  url(host: string): string;
}

/** Serves an empty page on every path, on a port of its own. */
export function serveSite(): Site {
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch: () =>
      new Response("<!doctype html><title>page</title>", {
        headers: { "content-type": "text/html" },
      }),
  });
  const port = server.port ?? 0;
  return {
    port,
    url: (host) => `http://${host}:${port}/`,
    [Symbol.asyncDispose]: () => server.stop(true),
  };
}

/** What a script of the page got: the answer, as far as it may see it, or the error. */
export interface Seen {
  readonly type?: string;
  readonly status?: number;
  readonly text?: string;
  readonly error?: string;
}

/** `fetch` in the page. */
export async function fetchIn(page: Page, url: string, init: RequestInit = {}): Promise<Seen> {
  return page.evaluate(
    async (target, options) => {
      try {
        const response = await fetch(target, options);
        return { type: response.type, status: response.status, text: await response.text() };
      } catch (error) {
        return { error: String(error) };
      }
    },
    url,
    init,
  );
}
