/** Files that are embedded into the executable: the import is the path to read them from. */
declare module "*/digest-thread.js" {
  const path: string;
  export default path;
}
