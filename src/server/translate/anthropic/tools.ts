/** Tools of a request, and which of them the model may or must use. Pure. */
import { given, invalid, type Members } from "./members.ts";
import type { Conversation } from "./request.ts";

type Tools = NonNullable<Conversation["tools"]>;
type Choice = NonNullable<Conversation["tool_choice"]>;

/** What is shown of a client's text. Characters. */
const MAX_SHOWN = 80;

/**
 * Engines do not choose by name: a tool that must be used is the only one they get.
 *
 * @throws invalid_request (a tool that must be used and is not there, two of a name)
 */
export function toTools({ tools: said, tool_choice: choice }: Conversation): Members {
  const tools = said ?? [];
  if (new Set(tools.map(({ name }) => name)).size < tools.length) {
    throw invalid("`tools` has two of the same name");
  }
  const chosen = choose(tools, choice);
  if (chosen.length === 0) return {};
  return {
    tools: chosen.map(({ name, description, input_schema: parameters }) => ({
      type: "function",
      function: { name, ...given({ description }), parameters },
    })),
    ...(choice === undefined || choice === null ? {} : toChoice(choice)),
  };
}

// --- internal ---

function choose(tools: Tools, choice: Choice | null | undefined): Tools {
  if (choice?.type === "any" && tools.length === 0) {
    throw invalid("`tool_choice` wants a tool used, and `tools` has none");
  }
  if (choice?.type !== "tool") return tools;
  const chosen = tools.filter(({ name }) => name === choice.name);
  if (chosen.length > 0) return chosen;
  const name = choice.name.slice(0, MAX_SHOWN);
  throw invalid(`\`tool_choice.name\` is \`${name}\`, which is none of \`tools\``);
}

function toChoice(choice: Choice): Members {
  if (choice.type === "none") return { tool_choice: "none" };
  return {
    tool_choice: choice.type === "auto" ? "auto" : "required",
    ...(choice.disable_parallel_tool_use === true ? { parallel_tool_calls: false } : {}),
  };
}
