/** What is said when a repository does not have one model that fits. */
import { AppError } from "../errors.ts";
import { printable } from "../http/host.ts";
import { groupName, type ShardGroup } from "./shards.ts";
import { formatSize } from "./text.ts";

/** A message lists no more. */
const MAX_LISTED = 12;

/** @param what fits several: in backticks, or words */
export function ambiguous(repo: string, what: string, groups: readonly ShardGroup[]): AppError {
  const names = groups
    .slice(0, MAX_LISTED)
    .map((group) => `\`${printable(groupName(group))}\` (${formatSize(group.bytes)})`);
  const more = groups.length - names.length;
  const list = `${names.join(", ")}${more > 0 ? ` and ${more} more` : ""}`;
  return new AppError("conflict", `cannot pull \`${repo}\`: ${what} fits several files: ${list}`, {
    hint: `Name the file, as in \`${repo}:${printable(groups[0] === undefined ? "" : groupName(groups[0]))}\`.`,
    details: {
      candidates: groups.map((group) => ({ path: groupName(group), size_bytes: group.bytes })),
    },
  });
}

export function incomplete(repo: string, group: ShardGroup): AppError {
  const { files, count } = group;
  return new AppError(
    "invalid_model_file",
    `cannot pull \`${repo}\`: \`${printable(groupName(group))}\` is incomplete: it has ${files.length} of ${count} shards`,
    { hint: "Choose another file, or wait until all of them are uploaded." },
  );
}
