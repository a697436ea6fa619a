import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Browser, Page } from "puppeteer-core";
import {
  chromium,
  fetchIn,
  launchChromium,
  type Seen,
  serveSite,
  type Site,
} from "../helpers/chromium.ts";
import { QUESTION } from "../helpers/pebble.ts";
import { describeIf } from "../helpers/test-if.ts";
import { type TugHome, tugHome } from "../helpers/tug-home.ts";

setDefaultTimeout(60_000);

const CHAT = {
  model: "ai/pebble",
  messages: [{ role: "user", content: QUESTION }],
  temperature: 0,
  stream: true,
};
const JSON_TYPE = { "content-type": "application/json" };

describeIf(chromium !== null, "chromium is not installed")("a browser", () => {
  let home: TugHome;
  let site: Site;
  let browser: Browser;
  let recorded: number;

  beforeAll(async () => {
    site = serveSite();
    home = await tugHome({
      engine: true,
      env: { TUG_ORIGINS: `http://app.example:${site.port} http://*.parts.example:*` },
    });
    const { exitCode, stderr } = await home.tug(["run", "pebble", QUESTION]);
    if (exitCode !== 0) throw new Error(`the built-in model does not run:\n${stderr}`);
    recorded = await countRequests(home);
    browser = await launchChromium();
  }, 240_000);
  afterAll(async () => {
    await browser.close();
    await site[Symbol.asyncDispose]();
    await home[Symbol.asyncDispose]();
  });

  test("a page elsewhere reads nothing, by no method and in no dialect", async () => {
    await using tab = await open(browser, site.url("evil.example"));

    for (const path of ["/v1/models", "/models", "/api/tags", "/", "/version", "/metrics", "/x"]) {
      expect(await fetchIn(tab.page, `${home.url}${path}`)).toEqual(BLOCKED);
    }
    for (const method of ["POST", "PUT", "DELETE", "PATCH"]) {
      expect(await fetchIn(tab.page, `${home.url}/v1/models`, { method })).toEqual(BLOCKED);
    }
  });

  test("a page elsewhere can neither chat nor pull, load or remove, also without a preflight", async () => {
    await using tab = await open(browser, site.url("evil.example"));
    const before = await state(home);

    for (const [path, body] of ATTACKS) {
      for (const type of ["text/plain", "application/json", "application/x-www-form-urlencoded"]) {
        const init = { method: "POST", headers: { "content-type": type }, body };
        expect(await fetchIn(tab.page, `${home.url}${path}`, init)).toEqual(BLOCKED);
      }
      const blind = { method: "POST", mode: "no-cors", headers: { "content-type": "text/plain" } };
      const seen = await fetchIn(tab.page, `${home.url}${path}`, { ...blind, body } as RequestInit);
      expect(seen).toEqual(OPAQUE);
    }

    expect(await state(home)).toEqual(before);
    expect(await countRequests(home)).toBe(recorded);
  });

  test("what such a page tries are routes that others use without an Origin", async () => {
    for (const [path] of ATTACKS) {
      const { status } = await fetch(`${home.url}${path}`, { method: "POST", body: "{" });

      expect(status).toBe(400);
    }
  });

  test("a form of a page elsewhere does nothing", async () => {
    await using tab = await open(browser, site.url("evil.example"));
    const before = await state(home);

    const answered = tab.page.waitForResponse((response) => response.url().startsWith(home.url));
    await tab.page.evaluate(formScript(`${home.url}/models/create`));

    expect((await answered).status()).toBe(403);
    expect(await state(home)).toEqual(before);
  });

  test("a request whose answer is hidden, an image and a script learn nothing", async () => {
    await using tab = await open(browser, site.url("evil.example"));
    const statuses: number[] = [];
    tab.page.on("response", (response) => {
      if (response.url().startsWith(home.url)) statuses.push(response.status());
    });

    const hidden = await fetchIn(tab.page, `${home.url}/v1/models`, { mode: "no-cors" });
    const loaded = await tab.page.evaluate(elementsScript(`${home.url}/v1/models`));

    expect(hidden).toEqual(OPAQUE);
    expect(loaded).toEqual(["error", "error", "error"]);
    expect(statuses).toEqual([403]);
  });

  test("a page whose name turns out to be this machine is refused", async () => {
    await using tab = await open(browser, site.url("rebound.example"));
    const rebound = `http://rebound.example:${home.port}`;

    const response = await tab.page.goto(`${rebound}/v1/models`);
    const text = await response?.text();
    // Now on the same origin, where no CORS applies and the browser hides nothing.
    const post = await fetchIn(tab.page, `${rebound}/v1/chat/completions`, {
      method: "POST",
      headers: JSON_TYPE,
      body: JSON.stringify(CHAT),
    });

    expect(response?.status()).toBe(403);
    expect(text).not.toContain("pebble");
    expect(post.status).toBe(403);
    expect(post.text).toContain("Host header names another machine");
    expect(await countRequests(home)).toBe(recorded);
  });

  test("files, sandboxed frames and data have no origin, and are refused", async () => {
    const file = join(home.path, "page.html");
    await writeFile(file, "<!doctype html><title>file</title>");
    await using tab = await open(browser, `file://${file}`);
    await using framed = await open(browser, site.url("localhost"));

    const inFrame = await framed.page.evaluate(frameScript(`${home.url}/v1/models`));

    expect(await fetchIn(tab.page, `${home.url}/v1/models`)).toEqual(BLOCKED);
    expect(inFrame).toBe("TypeError: Failed to fetch");
  });

  test("the refusal is the command that allows the origin, and the command does", async () => {
    await using own = await tugHome({ engine: true });
    await using tab = await open(browser, site.url("new.example"));
    await own.tug(["start-runner"]);
    const origin = `http://new.example:${site.port}`;

    const before = await fetchIn(tab.page, `${own.url}/v1/models`);
    const refused = await fetch(`${own.url}/v1/models`, { headers: { origin } });
    const [, value = ""] =
      /`TUG_ORIGINS=(\S+) tug restart-runner`/.exec(await refused.text()) ?? [];
    await own.tug(["restart-runner"], { env: { TUG_ORIGINS: value } });
    const after = await fetchIn(tab.page, `${own.url}/v1/models`);

    expect(before).toEqual(BLOCKED);
    expect(value).toBe(origin);
    expect(after.status).toBe(200);
  });

  test.each(["app.example", "one.parts.example", "localhost", "127.0.0.1"])(
    "an allowed page at %s chats, streaming, with the headers of an SDK",
    async (host) => {
      await using tab = await open(browser, site.url(host));

      const { pieces, requestId } = await streamIn(tab.page, `${home.url}/v1/chat/completions`);

      expect(pieces.length).toBeGreaterThan(3);
      expect(pieces.join("")).toContain("Paris");
      expect(requestId).toBe("from-a-page");
    },
  );

  test("an allowed page reads errors, too", async () => {
    await using tab = await open(browser, site.url("app.example"));

    const missing = await fetchIn(tab.page, `${home.url}/nothing`, { headers: { "x-a": "b" } });
    const wrong = await fetchIn(tab.page, `${home.url}/v1/models`, { method: "DELETE" });
    const unknown = await fetchIn(tab.page, `${home.url}/v1/chat/completions`, {
      method: "POST",
      headers: JSON_TYPE,
      body: JSON.stringify({ ...CHAT, model: "me/absent" }),
    });

    expect([missing.status, wrong.status, unknown.status]).toEqual([404, 405, 404]);
    expect(unknown.text).toContain("model_not_found");
  });
});

/** What a page sees of an answer that it may not read. */
const BLOCKED: Seen = { error: "TypeError: Failed to fetch" };
const OPAQUE: Seen = { type: "opaque", status: 0, text: "" };

/** What would have an effect if it got through. */
const ATTACKS: readonly (readonly [string, string])[] = [
  ["/v1/chat/completions", JSON.stringify({ ...CHAT, stream: false })],
  ["/engines/v1/chat/completions", JSON.stringify({ ...CHAT, stream: false })],
  ["/api/chat", JSON.stringify({ ...CHAT, stream: false })],
  ["/anthropic/v1/messages", JSON.stringify({ ...CHAT, stream: false, max_tokens: 5 })],
  ["/models/create", JSON.stringify({ from: "me/absent" })],
  ["/api/pull", JSON.stringify({ model: "me/absent" })],
  ["/engines/unload", JSON.stringify({ all: true })],
  ["/engines/load", JSON.stringify({ model: "ai/pebble" })],
];

/** Scripts of pages, as text: their `document` is none of ours. */
function formScript(action: string): string {
  return `
    const form = Object.assign(document.createElement("form"), {
      method: "POST", action: ${JSON.stringify(action)}, enctype: "text/plain",
    });
    form.append(Object.assign(document.createElement("input"), {
      name: '{"from":"me/absent","x":"', value: '"}',
    }));
    document.body.append(form);
    form.submit();`;
}

function elementsScript(url: string): string {
  return `Promise.all(["img", "script", "link"].map((tag) => new Promise((resolve) => {
    const element = document.createElement(tag);
    element.addEventListener("load", () => resolve("load"));
    element.addEventListener("error", () => resolve("error"));
    Object.assign(element, { src: ${JSON.stringify(url)}, rel: "stylesheet", href: ${JSON.stringify(url)} });
    document.head.append(element);
  })))`;
}

function frameScript(url: string): string {
  const ask = `fetch("${url}").then((r) => r.text(), String).then((t) => parent.postMessage(t, "*"))`;
  return `new Promise((resolve) => {
    addEventListener("message", (event) => resolve(String(event.data)), { once: true });
    const frame = document.createElement("iframe");
    frame.setAttribute("sandbox", "allow-scripts");
    frame.srcdoc = ${JSON.stringify(`<script>${ask}</script>`)};
    document.body.append(frame);
  })`;
}

async function open(browser: Browser, url: string): Promise<{ page: Page } & AsyncDisposable> {
  const page = await browser.newPage();
  await page.goto(url);
  return { page, [Symbol.asyncDispose]: () => page.close() };
}

async function streamIn(
  page: Page,
  url: string,
): Promise<{ pieces: string[]; requestId: string | null }> {
  return page.evaluate(
    async (target, body) => {
      const response = await fetch(target, {
        method: "POST",
        headers: {
          "content-type": "application/json",
          authorization: "Bearer not-needed",
          "x-request-id": "from-a-page",
          "x-stainless-lang": "js",
        },
        body,
      });
      const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const next = await reader?.read();
        if (next === undefined || next.done) break;
        text += next.value;
      }
      const pieces = text
        .split("\n\n")
        .filter((event) => event.startsWith("data: {"))
        .map((event) => JSON.parse(event.slice("data: ".length)).choices[0]?.delta.content ?? "");
      return { pieces, requestId: response.headers.get("x-request-id") };
    },
    url,
    JSON.stringify(CHAT),
  );
}

/** What an attack would have changed. */
async function state(home: TugHome): Promise<unknown> {
  const [models, loaded, runner] = await Promise.all(
    ["/models", "/engines/ps", "/version"].map(async (path) =>
      (await fetch(`${home.url}${path}`)).json(),
    ),
  );
  return { models, loaded: (loaded as unknown[]).length, runner };
}

async function countRequests(home: TugHome): Promise<number> {
  const { stdout } = await home.tug(["requests", "--json"]);
  return (JSON.parse(stdout) as unknown[]).length;
}
