/** The life of the running runner: what it says of itself, when it leaves, and in which order it lets go. */
import type { RunnerInfo, SandboxInfo } from "../api/engines.ts";
import { log } from "../log.ts";
import { pause } from "../pause.ts";
import { type Clock, systemClock } from "../runtime/clock.ts";
import { VERSION } from "../version.ts";
import type { Listening } from "./listen.ts";
import type { EngineInstaller, RunnerControl } from "./deps.ts";
import { toEngineInstallation } from "./routes/engines.ts";

/** An answer that is being given may take this long to finish when the runner is asked to leave. */
const DRAIN_MS = 60_000;
const POLL_MS = 50;
/** A longer timer would fire at once; 24 days of idleness are enough to leave. */
const MAX_TIMER_MS = 2 ** 31 - 1;

export interface RunningRunnerDeps {
  readonly supervisor: {
    close(options: { graceMs: number }): Promise<void>;
    onIdleChange(listener: (idle: boolean) => void): () => void;
    readonly busy: boolean;
  };
  readonly installer: Pick<EngineInstaller, "list">;
  /** While it pulls it does not leave for being idle; when it is to leave, pulls are cancelled, and go on another time. */
  readonly pulls?: { readonly busy: boolean; close(): Promise<void> };
  readonly idleExitMs: number | null;
  /** Looked up when somebody asks. */
  readonly sandbox?: () => Promise<SandboxInfo>;
  readonly clock?: Clock;
}

export class RunningRunner implements RunnerControl {
  readonly closed: Promise<void>;
  readonly #deps: RunningRunnerDeps;
  readonly #startedAt = new Date();
  readonly #finish: () => void;
  #listening: Listening | undefined;
  #idleTimer: Disposable | undefined;
  readonly #clock: Clock;
  readonly #followers = new AbortController();
  #stopping = false;
  #forced = false;

  constructor(deps: RunningRunnerDeps) {
    this.#deps = deps;
    this.#clock = deps.clock ?? systemClock;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.closed = promise;
    this.#finish = resolve;
  }

  /** From now on it serves, and counts the time it is idle. */
  begin(listening: Listening): void {
    this.#listening = listening;
    this.#deps.supervisor.onIdleChange((isIdle) => this.#watchIdleness(isIdle));
    this.#watchIdleness(!this.#deps.supervisor.busy);
    log.info(`runner: listening endpoint=${listening.endpoint} socket=${listening.socket}`);
  }

  async info(): Promise<RunnerInfo> {
    const listening = this.#listening;
    return {
      version: VERSION,
      pid: process.pid,
      endpoint: listening?.endpoint ?? null,
      endpoint_problem: (await listening?.endpointProblem) ?? null,
      socket: listening?.socket ?? null,
      authority: listening?.authority ?? null,
      started_at: this.#startedAt.toISOString(),
      idle_exit_ms: this.#deps.idleExitMs,
      engines: (await this.#deps.installer.list()).map(toEngineInstallation),
      sandbox: await this.#deps.sandbox?.(),
    };
  }

  get watching(): AbortSignal {
    return this.#followers.signal;
  }

  get isStopping(): boolean {
    return this.#stopping;
  }

  /** Returns at once; `closed` tells when it is done. A second call with `force` cuts a patient stop short. */
  stop({ force }: { force: boolean }): void {
    if (this.#stopping && !force) return;
    this.#stopping = true;
    this.#forced ||= force;
    this.#idleTimer?.[Symbol.dispose]();
    log.info(`runner: stopping force=${force}`);
    void this.#close(force ? 0 : DRAIN_MS);
  }

  // --- internal ---

  /** Answers first, then the doors: whoever is being answered still hears the end. */
  async #close(graceMs: number): Promise<void> {
    try {
      const deadline = performance.now() + graceMs;
      await Promise.all([this.#deps.supervisor.close({ graceMs }), this.#deps.pulls?.close()]);
      // Who only follows the log or the events waits for nothing; an upload or an installation is let finish.
      this.#followers.abort();
      while (this.#isServing() && !this.#forced && performance.now() < deadline)
        await pause(POLL_MS);
      await this.#listening?.stop();
      log.info("runner: stopped");
    } catch (error) {
      log.error(`runner: stopped badly reason=${(error as Error).message}`);
    } finally {
      this.#finish();
    }
  }

  #isServing(): boolean {
    return (this.#listening?.pendingRequests() ?? 0) > 0;
  }

  #watchIdleness(isIdle: boolean): void {
    this.#idleTimer?.[Symbol.dispose]();
    // What the last answers left behind goes now: nothing collects it while nothing happens.
    if (isIdle) Bun.gc(true);
    const { idleExitMs } = this.#deps;
    if (!isIdle || idleExitMs === null || idleExitMs < 0 || this.#stopping) return;
    const delayMs = Math.min(idleExitMs, MAX_TIMER_MS);
    this.#idleTimer = this.#clock.setTimer(delayMs, () => {
      // No worker, but somebody is still served: an installation, a long export, a pull.
      if (this.#isServing() || this.#deps.pulls?.busy === true) return this.#watchIdleness(true);
      return this.stop({ force: false });
    });
  }
}
