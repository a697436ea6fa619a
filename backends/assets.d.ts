/** Files that are embedded into the executable as text. */
declare module "*.py" {
  const text: string;
  export default text;
}
declare module "*.txt" {
  const text: string;
  export default text;
}

declare module "*.sh" {
  const text: string;
  export default text;
}
