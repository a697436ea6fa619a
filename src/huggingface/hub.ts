/** What of the Hub's own library is used. It is loaded by a dynamic import of this file, which bundles no more of it. */
export { listFiles, listModels, modelInfo } from "@huggingface/hub";
