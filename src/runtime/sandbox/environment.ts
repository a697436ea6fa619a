/** Which of the runner's variables a confined engine keeps. Pure. */

/**
 * Language and time, where programs and libraries are, and how devices and threads are chosen. An allow-list: the rest
 * may hold tokens, and the places of what the sandbox hides.
 */
const KEPT =
  /^(?:PATH|LANG|LC_\w+|TZ|LD_LIBRARY_PATH|(?:GGML|LLAMA|CUDA|NVIDIA|NCCL|HIP|HSA|ROCR|ROCM|VK|ZE|ZES|SYCL|ONEAPI|OMP|KMP|GOMP|MKL|OPENBLAS)_\w+|GPU_DEVICE_ORDINAL)$/;

/** A library or a vendor may put these under its own prefix. */
const SECRET = /(?:KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL)/;

/**
 * @param kept names that the backend sets itself
 * @returns names to remove before the engine starts
 */
export function hiddenVariables(
  env: Readonly<Record<string, string | undefined>>,
  kept: readonly string[] = [],
): readonly string[] {
  return Object.keys(env).filter(
    (name) => !kept.includes(name) && (!KEPT.test(name) || SECRET.test(name)),
  );
}
