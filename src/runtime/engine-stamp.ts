/** Whether another engine may have become the active one, for the price of a look at one file each. */
import { statSync } from "node:fs";
import { pointerPath } from "./installer/layout.ts";

/**
 * @param directory where engines are installed
 * @returns a text that changes whenever an engine is installed, removed or chosen
 */
export function engineStamp(directory: string, backends: readonly string[]): string {
  return backends
    .map((backend) => {
      const path = pointerPath(directory, backend);
      const facts = statSync(path, { bigint: true, throwIfNoEntry: false });
      return facts === undefined ? "" : `${facts.ino}.${facts.mtimeNs}.${facts.size}`;
    })
    .join(" ");
}
