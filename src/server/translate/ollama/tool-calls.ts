/** Calls of tools: engines stream their arguments in pieces, Ollama's clients get each call whole. Pure. */
import { AppError } from "../../../errors.ts";
import { isRecord } from "../../../oci/descriptor.ts";
import type { ToolCallDelta } from "../chat.ts";
import type { OllamaToolCall } from "./answers.ts";

/** Far more than any model writes into a call; it is held until the call is whole. Characters. */
const MAX_ARGUMENTS = 16 * 1024 * 1024;

interface OpenCall {
  /** The engine's; some have none, and begin each call with its id. */
  readonly index: number | undefined;
  id: string;
  name: string;
  arguments: string;
}

/** Of one answer. */
export class ToolCalls {
  #open: OpenCall | undefined;
  #done = 0;

  /** @returns the calls that are whole now: a call is when the next one begins @throws worker_failed */
  push(deltas: readonly ToolCallDelta[]): OllamaToolCall[] {
    const whole: OllamaToolCall[] = [];
    for (const delta of deltas) {
      if (this.#begins(delta)) {
        whole.push(...this.#close(false));
        this.#open = { index: indexOf(delta), id: "", name: "", arguments: "" };
      }
      this.#append(delta);
    }
    return whole;
  }

  /** @param isCut the answer ended before the model did: a call that it broke off is left out @throws worker_failed */
  end(isCut: boolean): OllamaToolCall[] {
    return this.#close(isCut);
  }

  #begins(delta: ToolCallDelta): boolean {
    const open = this.#open;
    if (open === undefined) return true;
    const index = indexOf(delta);
    return index === undefined ? typeof delta.id === "string" : index !== open.index;
  }

  #append({ id, function: called }: ToolCallDelta): void {
    const open = this.#open;
    if (open === undefined) return;
    if (typeof id === "string") open.id ||= id;
    if (typeof called?.name === "string") open.name ||= called.name;
    if (typeof called?.arguments === "string") open.arguments += called.arguments;
    if (open.arguments.length > MAX_ARGUMENTS) throw unusable("its arguments are too long");
  }

  #close(isCut: boolean): OllamaToolCall[] {
    const open = this.#open;
    this.#open = undefined;
    if (open === undefined) return [];
    // Cut off before its arguments began: what they would have been is not known.
    if (isCut && open.arguments.trim() === "") return [];
    const value = parseArguments(open.arguments);
    if (value === undefined && isCut) return [];
    if (value === undefined) throw unusable("its arguments are no JSON object");
    const call = { index: this.#done, name: open.name, arguments: value };
    this.#done += 1;
    return [open.id === "" ? { function: call } : { id: open.id, function: call }];
  }
}

// --- internal ---

function indexOf({ index }: ToolCallDelta): number | undefined {
  return typeof index === "number" ? index : undefined;
}

function parseArguments(text: string): Readonly<Record<string, unknown>> | undefined {
  if (text.trim() === "") return {};
  try {
    const value: unknown = JSON.parse(text);
    return isRecord(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

function unusable(reason: string): AppError {
  return new AppError("worker_failed", `cannot pass on the model's call of a tool: ${reason}`, {
    hint: "Ask again, or allow a longer answer.",
  });
}
