/** The engines Tug knows. The one importer of `backends/`. */
import { llamacpp } from "../../backends/llamacpp/index.ts";

import type { Backend } from "./backend.ts";

/** In the order of preference where several can serve a model. */
export const BACKENDS: readonly Backend[] = [llamacpp];
