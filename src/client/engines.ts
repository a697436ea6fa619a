/** Engines of a machine through its API, installed or not. */
import type { AvailableEngine, EngineInstallation, UseRequest } from "../api/engines.ts";
import type { CallOptions, Client } from "./client.ts";

export async function listAvailableEngines(
  client: Client,
  options: CallOptions,
): Promise<AvailableEngine[]> {
  const response = await client.call("GET", "/engines/available", options);
  return (await response.json()) as AvailableEngine[];
}

/** @returns the one that is active now */
export async function useEngine(
  client: Client,
  body: UseRequest,
  options: CallOptions,
): Promise<EngineInstallation> {
  const response = await client.call("POST", "/engines/use", { ...options, body });
  return (await response.json()) as EngineInstallation;
}
