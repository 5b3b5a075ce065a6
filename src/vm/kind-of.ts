/** Names a value in an error about a wrong argument: `the string "x"`, `undefined`, `an object of the class Map`. */
export function kindOf(value: unknown): string {
  if (typeof value === 'string') return `the string ${JSON.stringify(value.slice(0, 100))}`;
  if (Array.isArray(value)) return 'an array';
  if (typeof value === 'function') return 'a function';
  if (typeof value !== 'object' || value === null) return String(value);
  if (typeof (value as PromiseLike<unknown>).then === 'function') return 'a Promise: await it first';
  const name = (value.constructor as { name?: string } | undefined)?.name ?? '';
  return name === '' || name === 'Object' ? 'a plain object' : `an object of the class ${name}`;
}
