/**
 * Pulls that the runner works on. Each runs in a process of its own with a lower priority, so that hashing and writing
 * never make the tokens of an answer stutter. Two requests for the same thing share one.
 */
import type { PullJob, PullRequest, PullResult } from "../api/models.ts";
import type { Progress, ProgressEvent, ProgressListener, Warning } from "../api/progress.ts";
import { AppError, fromErrorObject, toAppError, toErrorObject } from "../errors.ts";
import { log } from "../log.ts";
import { formatReference, parseReference } from "../oci/reference.ts";

/** A process that pulls. */
export interface PullProcess {
  readonly pid: number;
  /** What it says, one event after the other; ends when it does. */
  readonly events: AsyncIterable<ProgressEvent<PullResult>>;
  /** How it ended, for people, such as `it left with 1: …`. Never rejects. */
  readonly ended: Promise<string>;
  kill(signal: "SIGTERM" | "SIGKILL"): void;
}

export interface PullJobsOptions {
  /** Starts the process. It gets the request by a way that other users cannot see, because of the token in it. */
  readonly spawn: (request: PullRequest) => PullProcess;
  /** From the polite request to end until the other one; 10 s unless given. */
  readonly killAfterMs?: number;
  /** Milliseconds since the epoch; for tests. */
  readonly now?: () => number;
}

interface FollowOptions {
  readonly signal: AbortSignal;
  readonly onProgress: ProgressListener;
}

/** A process each: more would only share the same line. */
const MAX_RUNNING = 16;
/** Ended ones that are remembered, for whoever asks later how it went. */
const MAX_ENDED = 50;
/** Things a pull tells of, each with its newest state; a model of thousands of files has them shown in part. */
const MAX_TRACKED = 20_000;
const KILL_AFTER_MS = 10_000;

export class PullJobs {
  readonly #options: PullJobsOptions;
  readonly #jobs = new Map<string, Job>();
  #isClosed = false;

  constructor(options: PullJobsOptions) {
    this.#options = options;
  }

  /** Whether anything is being pulled. */
  get busy(): boolean {
    return this.#running().length > 0;
  }

  /** Starts a pull that needs nobody to wait for it, or lets a running one go on by itself. */
  detach(request: PullRequest): PullJob {
    const job = this.#join(request);
    job.isDetached = true;
    return job.describe();
  }

  /**
   * Pulls, and tells how it goes. When the last one who waits for it leaves, a pull that is not detached is cancelled.
   *
   * @throws what the pull failed with; cancelled when the signal fires; too_many_requests
   */
  async pull(request: PullRequest, { signal, onProgress }: FollowOptions): Promise<PullResult> {
    signal.throwIfAborted();
    const job = this.#join(request);
    const left = Promise.withResolvers<never>();
    const leave = (): void => left.reject(new AppError("cancelled", "cancelled"));
    signal.addEventListener("abort", leave, { once: true });
    const unfollow = job.follow(onProgress);
    try {
      return await Promise.race([job.result, left.promise]);
    } finally {
      signal.removeEventListener("abort", leave);
      unfollow();
      if (job.isAbandoned) job.cancel();
    }
  }

  /** Running ones first, then the newest. */
  list(): PullJob[] {
    const jobs = [...this.#jobs.values()].toReversed().map((job) => job.describe());
    return [
      ...jobs.filter(({ state }) => state === "running"),
      ...jobs.filter(({ state }) => state !== "running"),
    ];
  }

  /** Returns when its process has ended. @throws not_found */
  async cancel(id: string): Promise<PullJob> {
    const job = this.#jobs.get(id);
    if (job === undefined) {
      throw new AppError("not_found", `cannot cancel \`${id.slice(0, 40)}\`: no such pull`, {
        hint: "`tug pulls` lists them.",
      });
    }
    job.cancel();
    await job.ended;
    return job.describe();
  }

  /** Cancels everything: what was fetched is kept, and the next pull goes on from there. */
  async close(): Promise<void> {
    this.#isClosed = true;
    const running = this.#running();
    for (const job of running) job.cancel();
    await Promise.all(running.map(({ ended }) => ended));
  }

  // --- internal ---

  #running(): Job[] {
    return [...this.#jobs.values()].filter(({ isRunning }) => isRunning);
  }

  #join(request: PullRequest): Job {
    const key = keyOf(request);
    const running = this.#running();
    // One that is being cancelled is no use to whoever comes now.
    const known = running.find((job) => job.key === key && !job.isCancelled);
    if (known !== undefined) return known;
    if (this.#isClosed) throw new AppError("shutting_down", "cannot pull: the runner is stopping");
    if (running.length >= MAX_RUNNING) {
      throw new AppError("too_many_requests", `cannot pull: ${running.length} pulls are running`, {
        hint: "Wait for one to end, or cancel one; `tug pulls` lists them.",
      });
    }
    return this.#start(key, request);
  }

  #start(key: string, request: PullRequest): Job {
    const job = new Job(key, request, this.#options);
    this.#jobs.set(job.id, job);
    log.info(`pulls: started id=${job.id} model=${request.from.slice(0, 200)} pid=${job.pid}`);
    void job.ended.then(() => {
      const { state, error } = job.describe();
      log.info(`pulls: ended id=${job.id} state=${state} reason=${error?.message ?? "none"}`);
      this.#forget();
    });
    return job;
  }

  /** The oldest ended ones go. */
  #forget(): void {
    const ended = [...this.#jobs.values()].filter(({ isRunning }) => !isRunning);
    for (const { id } of ended.slice(0, Math.max(0, ended.length - MAX_ENDED))) {
      this.#jobs.delete(id);
    }
  }
}

// --- internal ---

type Last = Exclude<ProgressEvent<PullResult>, Progress | Warning>;

class Job {
  readonly id = crypto.randomUUID().slice(0, 8);
  readonly key: string;
  /** Rejects with an `AppError`. */
  readonly result: Promise<PullResult>;
  /** When its process is gone. */
  readonly ended: Promise<void>;
  isDetached = false;
  isCancelled = false;
  readonly #model: string;
  readonly #process: PullProcess;
  readonly #killAfterMs: number;
  readonly #now: () => number;
  readonly #startedAt: number;
  readonly #followers = new Set<ProgressListener>();
  /** The newest of each. */
  readonly #progress = new Map<string, Progress>();
  readonly #warnings: Warning[] = [];
  #outcome: { readonly endedAt: number; readonly error: AppError | undefined } | undefined;

  constructor(key: string, request: PullRequest, options: PullJobsOptions) {
    this.key = key;
    this.#model = request.from;
    this.#now = options.now ?? Date.now;
    this.#killAfterMs = options.killAfterMs ?? KILL_AFTER_MS;
    this.#startedAt = this.#now();
    this.#process = options.spawn(request);
    this.result = this.#run();
    this.ended = this.result.then(nothing, nothing);
  }

  get pid(): number {
    return this.#process.pid;
  }

  get isRunning(): boolean {
    return this.#outcome === undefined;
  }

  /** Nobody waits for it, and nobody said that it should go on. */
  get isAbandoned(): boolean {
    return this.isRunning && !this.isDetached && this.#followers.size === 0;
  }

  /** Whoever comes later hears first how far it is. @returns what ends the following */
  follow(onProgress: ProgressListener): () => void {
    for (const event of [...this.#warnings, ...this.#progress.values()]) onProgress(event);
    // A function of its own, because two followers may share a listener.
    const follower: ProgressListener = (event) => onProgress(event);
    this.#followers.add(follower);
    return () => void this.#followers.delete(follower);
  }

  /** Returns at once; `ended` tells when it is done. */
  cancel(): void {
    if (!this.isRunning || this.isCancelled) return;
    this.isCancelled = true;
    this.#process.kill("SIGTERM");
    const timer = setTimeout(() => this.#process.kill("SIGKILL"), this.#killAfterMs);
    void this.ended.then(() => clearTimeout(timer));
  }

  describe(): PullJob {
    const { done, total } = this.#bytes();
    return {
      id: this.id,
      model: this.#model,
      state: this.#state(),
      done_bytes: done,
      total_bytes: total,
      started_at: new Date(this.#startedAt).toISOString(),
      ended_at: this.#outcome === undefined ? null : new Date(this.#outcome.endedAt).toISOString(),
      error: this.#outcome?.error === undefined ? null : toErrorObject(this.#outcome.error),
    };
  }

  async #run(): Promise<PullResult> {
    try {
      const result = await this.#read();
      this.#outcome = { endedAt: this.#now(), error: undefined };
      return result;
    } catch (thrown) {
      const error = this.isCancelled
        ? new AppError("cancelled", `the pull of \`${this.#model.slice(0, 200)}\` was cancelled`)
        : toAppError(thrown);
      this.#outcome = { endedAt: this.#now(), error };
      throw error;
    }
  }

  async #read(): Promise<PullResult> {
    let last: Last | undefined;
    try {
      for await (const event of this.#process.events) {
        if (event.type === "success" || event.type === "error") last = event;
        else this.#relay(event);
      }
    } catch (cause) {
      // What it says cannot be understood: nobody would hear how it ends.
      this.#process.kill("SIGKILL");
      await this.#process.ended;
      throw cause;
    }
    const how = await this.#process.ended;
    if (last?.type === "success") return last.result;
    if (last !== undefined) {
      throw fromErrorObject(last.error) ?? new AppError("internal", last.error.message);
    }
    throw new AppError("internal", `cannot pull \`${this.#model.slice(0, 200)}\`: ${how}`, {
      hint: "Pull it again; what was fetched is kept.",
    });
  }

  #relay(event: Progress | Warning): void {
    if (event.type === "warning") {
      if (this.#warnings.length < MAX_TRACKED) this.#warnings.push(event);
    } else if (this.#progress.has(event.id) || this.#progress.size < MAX_TRACKED) {
      this.#progress.set(event.id, event);
    }
    for (const follower of this.#followers) follower(event);
  }

  #state(): PullJob["state"] {
    if (this.#outcome === undefined) return "running";
    if (this.#outcome.error === undefined) return "done";
    return this.#outcome.error.code === "cancelled" ? "cancelled" : "failed";
  }

  /** Of what is counted in bytes; the total is unknown while that of one part is. */
  #bytes(): { done: number; total: number | null } {
    const counted = [...this.#progress.values()].filter(({ done_bytes: done }) => done !== null);
    const isKnown = counted.length > 0 && counted.every(({ total_bytes: total }) => total !== null);
    const sum = (of: (event: Progress) => number | null): number =>
      counted.reduce((total, event) => total + (of(event) ?? 0), 0);
    return {
      done: sum((event) => event.done_bytes),
      total: isKnown ? sum((event) => event.total_bytes) : null,
    };
  }
}

function nothing(): void {}

/** What makes two pulls the same. A token is part of it: nobody shares what another one may read. */
function keyOf(request: PullRequest): string {
  const { from, platform = "", insecure = false, "bearer-token": token = "" } = request;
  return JSON.stringify([canonical(from), platform, insecure, token]);
}

/** Addresses and what else only the pull itself understands stay as they are. */
function canonical(name: string): string {
  try {
    return formatReference(parseReference(name));
  } catch {
    return name.trim();
  }
}
