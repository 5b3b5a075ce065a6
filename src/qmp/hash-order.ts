/**
 * The order in which QEMU finds the members of an object that it must complain about. It keeps them in tables, by a hash of
 * their name:
 *
 *     members of a message     512 chains; in a chain the latest is first
 *     arguments                GLib's table, filled in that order: 8 places for up to 7 members, then 16, 32, …
 *
 * So of two members that do not belong there, the one that is named depends on their names, not on which came first.
 */

const chains = 512;
const utf8 = new TextEncoder();

/** In QEMU's order of the members of a message. */
export function messageOrder(names: readonly string[]): string[] {
  const all = names.map((name, at) => ({ name, at, chain: chainOf(name) }));
  return all.sort((a, b) => a.chain - b.chain || b.at - a.at).map(({ name }) => name);
}

/** In QEMU's order of arguments. Exact for up to 7 of them, of which the table never grows. */
export function argumentOrder(names: readonly string[]): string[] {
  const shift = Math.max(3, 32 - Math.clz32(names.length));
  const size = 1 << shift;
  const places: (string | undefined)[] = new Array(size).fill(undefined);
  for (const name of messageOrder(names)) {
    let place = (Math.imul(hash(name), 11) >>> 0) % (primes[shift - 3] ?? size - 1);
    for (let step = 1; places[place] !== undefined; step++) place = (place + step) & (size - 1);
    places[place] = name;
  }
  return places.filter((name) => name !== undefined);
}

/** The largest prime below 8, 16, 32, … */
const primes = [7, 13, 31, 61, 127, 251, 509];

function chainOf(name: string): number {
  const bytes = utf8.encode(name);
  let sum = Math.imul(0x238f13af, bytes.length);
  for (const [at, byte] of bytes.entries()) sum = (sum + (byte << ((at * 5) % 24))) | 0;
  return ((Math.imul(1103515243, sum) + 12345) >>> 0) % chains;
}

/** Of the name as signed bytes. */
function hash(name: string): number {
  let sum = 5381;
  for (const byte of new Int8Array(utf8.encode(name))) sum = (Math.imul(sum, 33) + byte) | 0;
  return sum;
}
