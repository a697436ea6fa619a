import { AppError } from "../../src/errors.ts";
import { createHttp } from "../../src/http/http.ts";
import { meaningOf } from "../../src/http/status-error.ts";
import type { Exchange, ExchangeRequest } from "../../src/oci/exchange.ts";

/** What one exchange did. */
export interface SentRequest extends ExchangeRequest {
  readonly target: string;
}

/**
 * An exchange without credentials and without retries, which repeats a request after a 401 once, as one that got a new token
 * does.
 */
export function plainExchange(
  base: string,
  repository = "me/model",
): Exchange & { readonly sent: SentRequest[] } {
  const http = createHttp({ offline: false, caBundle: "", isInsecure: () => false });
  const sent: SentRequest[] = [];
  return {
    registry: new URL(base).host,
    repository,
    sent,
    send: async (target, request) => {
      sent.push({ target, ...request });
      const url = target.startsWith("/") ? `${base}/v2/${repository}${target}` : target;
      let response = await http.send(url, request);
      if (response.status === 401) response = await http.send(url, request);
      if (response.status < 400 || request.accept?.includes(response.status) === true)
        return response;
      const { code, details } = meaningOf(response);
      throw new AppError(code, `cannot use ${base}: status ${response.status}`, { details });
    },
  };
}
