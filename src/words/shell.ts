/** Words as a POSIX shell takes them. */

const plain = /^[A-Za-z0-9_@%+=:,./-]+$/;

/** A word, in quotes if the shell would change it. */
const shellQuote = (word: string): string => (plain.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);

/** Words on one line. */
export const shellLine = (words: readonly string[]): string => words.map(shellQuote).join(' ');
