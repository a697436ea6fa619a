/** Files that are embedded into the executable: the import is the path to read them from. */
declare module "*.gguf" {
  const path: string;
  export default path;
}
