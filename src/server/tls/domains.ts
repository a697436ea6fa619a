/** Domains that resolve nowhere in public, so that an authority of one machine may sign for them. */
export const PRIVATE_DOMAINS: readonly string[] = [
  "localhost",
  "local",
  "lan",
  "internal",
  "home.arpa",
];
