/** The schemas by which requests are checked, by the names that they have in the description of the API. */
import * as v from "valibot";
import { DockerConfigureBody } from "../docker-settings.ts";
import { ExportBody } from "../routes/archives.ts";
import { EmbeddingsRequest } from "../routes/embeddings.ts";
import { InstallBody, UninstallBody, UseBody } from "../routes/engines.ts";
import { CreateKeyBody, RevokeKeysBody } from "../routes/keys.ts";
import { PackageBody, PruneBody, RepackageRequest } from "../routes/models.ts";
import {
  OllamaCopyRequest,
  OllamaCreateRequest,
  OllamaDeleteRequest,
  OllamaPullRequest,
  OllamaPushRequest,
  OllamaShowRequest,
} from "../routes/ollama/requests.ts";
import { ChatCompletionsRequest, CompletionsRequest } from "../routes/openai.ts";
import { LoginBody, LogoutBody } from "../routes/registries.ts";
import { RerankRequest, ScoreRequest } from "../routes/rerank.ts";
import { ConfigureBody, EstimateBody, ExplainBody } from "../routes/settings.ts";
import { DetokenizeRequest, InputTokensRequest, TokenizeRequest } from "../routes/tokens.ts";
import { AdoptBody, CopyBody, PullBody, PushBody } from "../routes/transfers.ts";
import { LoadBody, PinBody, UnloadBody } from "../routes/workers.ts";
import { ContentBlock } from "../translate/anthropic/blocks.ts";
import { CountTokensRequest, MessagesRequest } from "../translate/anthropic/request.ts";
import {
  OllamaChatRequest,
  OllamaEmbeddingsRequest,
  OllamaEmbedRequest,
  OllamaGenerateRequest,
  OllamaMessage,
  OllamaOptions,
} from "../translate/ollama/requests.ts";
import { ImageEditRequest, ImageGenerationRequest } from "../image-request.ts";
import { ResponsesRequest } from "../translate/responses/request.ts";

export const REQUESTS = {
  ChatCompletionsRequest,
  CompletionsRequest,
  EmbeddingsRequest,
  InputTokensRequest,
  ImageEditRequest,
  ImageGenerationRequest,
  RerankRequest,
  ScoreRequest,
  TokenizeRequest,
  DetokenizeRequest,
  ResponsesRequest,
  MessagesRequest,
  CountTokensRequest,
  OllamaChatRequest,
  OllamaGenerateRequest,
  OllamaEmbedRequest,
  OllamaEmbeddingsRequest,
  OllamaShowRequest,
  OllamaCopyRequest,
  OllamaDeleteRequest,
  OllamaPullRequest,
  OllamaPushRequest,
  OllamaCreateRequest,
  PullRequest: PullBody,
  PushRequest: PushBody,
  CopyRequest: CopyBody,
  AdoptRequest: AdoptBody,
  PackageRequest: PackageBody,
  RepackageRequest,
  PruneRequest: PruneBody,
  ExportRequest: ExportBody,
  LoginRequest: LoginBody,
  LogoutRequest: LogoutBody,
  InstallRequest: InstallBody,
  UninstallRequest: UninstallBody,
  UseRequest: UseBody,
  LoadRequest: LoadBody,
  UnloadRequest: UnloadBody,
  PinRequest: PinBody,
  ConfigureRequest: v.union([ConfigureBody, DockerConfigureBody]),
  ExplainRequest: ExplainBody,
  EstimateRequest: EstimateBody,
  CreateKeyRequest: CreateKeyBody,
  RevokeKeysRequest: RevokeKeysBody,
} as const;

export type RequestName = keyof typeof REQUESTS;

/** Parts of several of them. */
export const PARTS = { AnthropicContentBlock: ContentBlock, OllamaMessage, OllamaOptions } as const;
