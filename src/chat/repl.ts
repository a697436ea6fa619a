/** The conversation at a terminal: reads a line, does what it says, until the person leaves. */
import type { LoadRequest } from "../api/engines.ts";
import { AppError, toAppError, type ErrorCode } from "../errors.ts";
import { openOutput } from "../terminal/output.ts";
import { createProgress } from "../terminal/progress.ts";
import { createStyle, hasColor, stripControls, type Style } from "../terminal/style.ts";
import { streamAnswer } from "./answer.ts";
import { expandMessage } from "./attachments.ts";
import type { ChatClient } from "./client.ts";
import { renderHelp } from "./help.ts";
import { History, isHistoryWanted } from "./history.ts";
import { ModelLoader } from "./model-loader.ts";
import { Prompt } from "./prompt.ts";
import { listChats, loadChat, saveChat } from "./saved-chats.ts";
import {
  addTurn,
  changeSettings,
  clearTurns,
  createSession,
  setParameter,
  toRequest,
  undoTurn,
  type ChatSettings,
  type Session,
  type Turn,
} from "./session.ts";
import { renderSession } from "./show.ts";
import { parseInput, type Action } from "./slash-commands.ts";

export interface ChatOptions {
  readonly client: ChatClient;
  readonly model: string;
  readonly settings: ChatSettings;
  readonly input: NodeJS.ReadStream;
  readonly output: NodeJS.WriteStream;
  readonly errors: NodeJS.WriteStream;
  /** Lines typed, over all sessions. */
  readonly historyFile: string;
  /** Where `/save` puts conversations. */
  readonly chatsDirectory: string;
  /** Render answers as Markdown. */
  readonly markdown: boolean;
  readonly signal: AbortSignal;
}

/** A model that fails like this will not do so less in the next turn. */
const FATAL: ReadonlySet<ErrorCode> = new Set([
  "model_not_found",
  "invalid_reference",
  "unsupported_model",
  "invalid_model_file",
]);

/**
 * A failed turn never ends the conversation; an interrupted one is kept with the part of the answer that came.
 *
 * @returns the exit code: 0 when the person left, 130 when the signal ended it
 * @throws usage (not at a terminal) · what a load fails with if the model can never be used
 */
export async function runChat(options: ChatOptions): Promise<number> {
  const { input, output, errors } = options;
  const terminal = [output, errors].find((stream) => stream.isTTY);
  if (!input.isTTY || terminal === undefined) {
    throw new AppError("usage", "cannot chat: not at a terminal", {
      hint: `Give the prompt as an argument: \`tug run ${options.model} "…"\`.`,
    });
  }
  // A terminal that goes away must not end the process with a stack.
  openOutput(output);
  openOutput(errors);
  const isWritable = isHistoryWanted(process.env);
  const history = await History.open({ file: options.historyFile, isWritable });
  const style = createStyle(hasColor(terminal));
  using prompt = new Prompt({ input, output: terminal, style, history });
  return await new Chat(options, prompt, history).run();
}

// --- internal ---

type ActionOf<Kind extends Action["kind"]> = Extract<Action, { kind: Kind }>;

class Chat {
  readonly #options: ChatOptions;
  readonly #prompt: Prompt;
  readonly #history: History;
  readonly #style: Style;
  readonly #loader: ModelLoader;
  /** Aborted with the reason when the conversation cannot go on, or by the signal. */
  readonly #over = new AbortController();
  #session: Session;
  /** For `/retry` after a turn that failed and is therefore not in the session. */
  #failedQuestion: Turn["question"] | undefined;

  constructor(options: ChatOptions, prompt: Prompt, history: History) {
    this.#options = options;
    this.#prompt = prompt;
    this.#history = history;
    this.#style = createStyle(hasColor(options.errors));
    this.#session = createSession(options.model, options.settings);
    this.#loader = new ModelLoader({ client: options.client, signal: this.#over.signal });
  }

  async run(): Promise<number> {
    const { signal } = this.#options;
    const onAbort = (): void => this.#over.abort(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
    try {
      this.#loader.start(this.#loadRequest(), (error) => this.#onLoadFailed(error));
      return await this.#loop();
    } finally {
      signal.removeEventListener("abort", onAbort);
      this.#over.abort();
    }
  }

  async #loop(): Promise<number> {
    for (;;) {
      const result = await this.#prompt.readLine(this.#over.signal);
      if (this.#options.signal.aborted) return 130;
      this.#over.signal.throwIfAborted();
      if (result.kind === "end") return 0;
      if (result.kind === "interrupt") {
        if (result.wasEmpty) this.#say("Press Ctrl+D or type /bye to leave.");
        continue;
      }
      const { text, typed, isLiteral } = result.submission;
      if (text.trim() === "") continue;
      await this.#history.add(typed);
      const action = parseInput(text, { isLiteral });
      if (action.kind === "exit") return 0;
      await this.#guard(() => this.#perform(action));
    }
  }

  /** Runs one action; what it throws is shown, and the conversation goes on. */
  async #guard(run: () => Promise<void>): Promise<void> {
    try {
      await run();
    } catch (error) {
      if (!this.#over.signal.aborted) this.#say(renderError(toAppError(error), this.#style));
    }
  }

  async #perform(action: Exclude<Action, { kind: "exit" }>): Promise<void> {
    if (action.kind === "message") await this.#onMessage(action.text);
    else if (action.kind === "retry") await this.#onRetry();
    else if (action.kind === "show") await this.#onShow();
    else if (action.kind === "save") await this.#onSave(action.name);
    else if (action.kind === "load") await this.#onLoad(action.name);
    else if (action.kind === "set-context") await this.#onSetContext(action.tokens);
    else this.#change(action);
  }

  /** The actions that only change the session or say something. */
  #change(
    action: Exclude<
      Action,
      ActionOf<"exit" | "message" | "retry" | "show" | "save" | "load" | "set-context">
    >,
  ): void {
    switch (action.kind) {
      case "help":
        return this.#say(renderHelp(action.topic));
      case "problem":
        return this.#say(action.message);
      case "clear":
        this.#session = clearTurns(this.#session);
        this.#failedQuestion = undefined;
        return this.#say("Forgot the conversation.");
      case "undo":
        return this.#onUndo();
      case "set-system":
        this.#set({ system: action.text === "" ? undefined : action.text });
        return this.#say(action.text === "" ? "Cleared system message." : "Set system message.");
      case "set-parameter":
        this.#session = setParameter(this.#session, action.name, action.value as never);
        return this.#say(renderParameter(action));
      case "set-verbose":
        this.#set({ verbose: action.verbose });
        return this.#say(`Timings are ${action.verbose ? "shown" : "hidden"}.`);
      case "set-reasoning":
        return this.#onSetReasoning(action.reasoning);
      default:
        action satisfies never;
    }
  }

  async #onMessage(text: string): Promise<void> {
    await this.#answer(async (signal) => (await expandMessage(text, { signal })).content);
  }

  async #onRetry(): Promise<void> {
    const failed = this.#failedQuestion;
    if (failed !== undefined) {
      await this.#answer(() => failed);
      return;
    }
    const last = undoTurn(this.#session);
    if (last === undefined) return this.#say("There is no message to answer again.");
    const before = this.#session;
    this.#session = last.session;
    let isAnswered = false;
    try {
      isAnswered = await this.#answer(() => last.undone.question);
    } finally {
      // A failure must not cost the answer that was there.
      if (!isAnswered) this.#session = before;
      this.#failedQuestion = undefined;
    }
  }

  /** @returns false if nothing came before it was interrupted; the turn is then not kept */
  async #answer(
    ask: (signal: AbortSignal) => Turn["question"] | Promise<Turn["question"]>,
  ): Promise<boolean> {
    const { client, output, errors, markdown } = this.#options;
    const { showReasoning, verbose } = this.#session.settings;
    return this.#interruptible(async (signal) => {
      const question = await ask(signal);
      this.#failedQuestion = question;
      await this.#waitForModel(signal);
      const request = toRequest(this.#session, question);
      const answer = await streamAnswer({
        client,
        request,
        signal,
        output,
        errors,
        markdown,
        showReasoning,
        verbose,
      });
      if (answer.outcome !== "complete" && answer.text === "") return false;
      this.#session = addTurn(this.#session, { question, answer: answer.text });
      this.#failedQuestion = undefined;
      return true;
    });
  }

  /** Runs work that Ctrl+C stops. */
  async #interruptible(work: (signal: AbortSignal) => Promise<boolean>): Promise<boolean> {
    const stop = new AbortController();
    using _ = this.#prompt.busy(() => stop.abort());
    try {
      return await work(AbortSignal.any([stop.signal, this.#over.signal]));
    } catch (error) {
      if (!stop.signal.aborted) throw error;
      return false;
    }
  }

  async #waitForModel(signal: AbortSignal): Promise<void> {
    using progress = createProgress({ stream: this.#options.errors, transient: true });
    await this.#loader.wait({ signal, onProgress: progress.listener });
  }

  async #onSetContext(tokens: number): Promise<void> {
    const before = this.#session.settings.contextSize;
    this.#set({ contextSize: tokens });
    try {
      const isLoaded = await this.#interruptible(async (signal) => {
        this.#loader.start(this.#loadRequest());
        await this.#waitForModel(signal);
        return true;
      });
      this.#say(
        isLoaded
          ? `Set num_ctx to ${tokens}.`
          : `Set num_ctx to ${tokens}; the model goes on loading.`,
      );
    } catch (error) {
      this.#set({ contextSize: before });
      this.#loader.reset(this.#loadRequest());
      throw error;
    }
  }

  async #onShow(): Promise<void> {
    await this.#interruptible(async (signal) => {
      const { client, model } = this.#options;
      // A model given as a file has no details in the store; the settings are worth showing all the same.
      const details = await client.inspect(model, { signal }).catch(() => undefined);
      signal.throwIfAborted();
      this.#say(renderSession(this.#session, details));
      return true;
    });
  }

  async #onSave(name: string): Promise<void> {
    const kept = await saveChat(this.#options.chatsDirectory, name, this.#session);
    const before = kept === undefined ? "" : ` The one before is in ${kept}`;
    this.#say(`Saved chat \`${name}\`.${before}`);
  }

  async #onLoad(name: string | undefined): Promise<void> {
    const { chatsDirectory } = this.#options;
    if (name === undefined) {
      const names = await listChats(chatsDirectory);
      this.#say(names.length === 0 ? "There are no saved chats." : names.join("\n"));
      return;
    }
    const chat = await loadChat(chatsDirectory, name);
    const { system, parameters, turns, model } = chat;
    this.#session = { ...changeSettings(this.#session, { system, parameters }), turns };
    this.#failedQuestion = undefined;
    const note = model === this.#session.model ? "" : ` It was held with ${model}.`;
    const count = `${turns.length} ${turns.length === 1 ? "message" : "messages"}`;
    this.#say(`Loaded chat \`${name}\` with ${count}.${note}`);
  }

  #onUndo(): void {
    const last = undoTurn(this.#session);
    if (last === undefined) return this.#say("There is nothing to take back.");
    this.#session = last.session;
    this.#failedQuestion = undefined;
    return this.#say("Took the last message and its answer back.");
  }

  #onSetReasoning(reasoning: "on" | "off" | "show" | "hide"): void {
    if (reasoning === "on" || reasoning === "off") this.#set({ think: reasoning === "on" });
    else this.#set({ showReasoning: reasoning === "show" });
    const facts = { on: "on", off: "off", show: "shown", hide: "hidden" };
    this.#say(`Reasoning is ${facts[reasoning]}.`);
  }

  #set(change: Partial<ChatSettings>): void {
    this.#session = changeSettings(this.#session, change);
  }

  #loadRequest(): LoadRequest {
    const { backend, contextSize, keepAlive } = this.#session.settings;
    return {
      model: this.#session.model,
      ...(backend === undefined ? {} : { backend }),
      ...(contextSize === undefined ? {} : { context_size: contextSize }),
      ...(keepAlive === undefined ? {} : { keep_alive: keepAlive }),
    };
  }

  /** Before the first message. Later failures belong to the turn that waited. */
  #onLoadFailed(thrown: unknown): void {
    const error = toAppError(thrown);
    if (FATAL.has(error.code)) this.#over.abort(error);
  }

  #say(text: string): void {
    this.#options.errors.write(text.endsWith("\n") ? text : `${text}\n`);
  }
}

function renderError(error: AppError, style: Style): string {
  const hint =
    error.hint === undefined ? "" : `\n${style.cyan("hint:")} ${stripControls(error.hint)}`;
  // Messages may quote what a server sent.
  return `${style.red("error:")} ${stripControls(error.message)}${hint}`;
}

function renderParameter(action: ActionOf<"set-parameter">): string {
  const { name, value } = action;
  if (value === undefined) return `Set ${name} to the model's own.`;
  return `Set ${name} to ${typeof value === "number" ? value : JSON.stringify(value)}.`;
}
