/** The connections that all blobs share: who asks first, gets one first. */

/** One connection. Disposing of it again does nothing. */
export type Slot = Disposable;

export class Slots {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(count: number) {
    this.#free = count;
  }

  /** Whether somebody waits for one. */
  get isContended(): boolean {
    return this.#waiting.length > 0;
  }

  tryTake(): Slot | undefined {
    if (this.#free === 0) return undefined;
    this.#free -= 1;
    let isHeld = true;
    return {
      [Symbol.dispose]: () => {
        if (!isHeld) return;
        isHeld = false;
        this.#free += 1;
        this.#waiting.shift()?.();
      },
    };
  }

  /** @throws the signal's reason */
  async take(signal: AbortSignal): Promise<Slot> {
    for (;;) {
      signal.throwIfAborted();
      const slot = this.isContended ? undefined : this.tryTake();
      if (slot !== undefined) return slot;
      await this.#turn(signal);
      const mine = this.tryTake();
      if (mine !== undefined && !signal.aborted) return mine;
      mine?.[Symbol.dispose]();
    }
  }

  #turn(signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const leave = (): void => {
      const index = this.#waiting.indexOf(resolve);
      if (index !== -1) this.#waiting.splice(index, 1);
      resolve();
    };
    signal.addEventListener("abort", leave, { once: true });
    this.#waiting.push(resolve);
    return promise.finally(() => signal.removeEventListener("abort", leave));
  }
}
