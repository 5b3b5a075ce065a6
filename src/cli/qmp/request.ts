/** What a user types as a QMP command: `migrate uri=tcp:host:4444`, with JSON where words do not do, or a whole request. */
import { parseJson } from '../../qmp/json-reader.ts';
import { isObject, type JsonObject, type JsonValue, setMember } from '../../qmp/json-value.ts';
import type { ServerSchema } from '../../qmp/server-schema.ts';
import { UsageError } from '../exit-codes.ts';

export interface QmpRequest {
  readonly command: string;
  readonly given: JsonObject;
}

/**
 * Makes a request of words. A value is text if the argument takes text, and otherwise JSON, or else text.
 * @param schema what the server takes; undefined if it does not say
 * @throws UsageError for an argument that the server does not take
 */
export function requestOf(words: readonly string[], schema: ServerSchema | undefined): QmpRequest {
  const request = readRequest(words, schema);
  check(request.command, request.given, schema);
  return request;
}

/** The same, without a check of its arguments. @throws UsageError for words that are not a request */
export function readRequest(words: readonly string[], schema: ServerSchema | undefined): QmpRequest {
  const [first = '', ...rest] = words;
  if (first.trimStart().startsWith('{')) return wholeRequest(words.join(' '));
  const known = schema?.argumentsOf(first);
  const given: JsonObject = {};
  for (const word of rest) {
    if (word.startsWith('{')) {
      const more = readJson(word);
      if (!isObject(more)) throw new UsageError(`expected an object, got ${word}`);
      for (const [name, value] of Object.entries(more)) setMember(given, name, value);
      continue;
    }
    const at = word.indexOf('=');
    if (at < 1) throw new UsageError(`expected ARGUMENT=VALUE or a JSON object, got ${word}`);
    const [name, text] = [word.slice(0, at), word.slice(at + 1)];
    const isText = known?.find((argument) => argument.name === name)?.isText === true;
    setMember(given, name, isText ? text : jsonOrText(text));
  }
  return { command: first, given };
}

function wholeRequest(text: string): QmpRequest {
  const request = readJson(text);
  if (!isObject(request) || typeof request.execute !== 'string')
    throw new UsageError(`expected {"execute": …}, got ${text}`);
  const given = request.arguments ?? {};
  if (!isObject(given)) throw new UsageError('expected "arguments" to be an object');
  return { command: request.execute, given };
}

function check(command: string, given: JsonObject, schema: ServerSchema | undefined): void {
  const known = schema?.argumentsOf(command);
  // The server itself says that it has no such command.
  if (known === undefined) return;
  const takes = () => (known.length === 0 ? 'it takes none' : `it takes ${known.map(({ name }) => name).join(', ')}`);
  for (const name of Object.keys(given)) {
    if (!known.some((argument) => argument.name === name)) {
      throw new UsageError(`${command} of this server has no argument ${name}: ${takes()}`);
    }
  }
  const missing = known.find(({ name, isOptional }) => !isOptional && !Object.hasOwn(given, name));
  if (missing !== undefined) throw new UsageError(`${command} needs the argument ${missing.name}: ${takes()}`);
}

function readJson(text: string): JsonValue {
  try {
    return parseJson(text);
  } catch (error) {
    throw new UsageError(`${(error as Error).message} in ${text}`);
  }
}

function jsonOrText(text: string): JsonValue {
  try {
    return parseJson(text);
  } catch {
    return text;
  }
}

/** The words of a line. Quotes keep spaces, and are removed; JSON in braces or brackets keeps its own. */
export function wordsOf(line: string): string[] {
  const words: string[] = [];
  let [word, quote, depth] = ['', '', 0];
  for (const character of line) {
    const isQuote = quote === '' ? character === '"' || character === "'" : character === quote;
    if (isQuote) quote = quote === '' ? character : '';
    else if (quote === '' && '{['.includes(character)) depth++;
    else if (quote === '' && '}]'.includes(character)) depth--;
    if (quote === '' && depth === 0 && /\s/.test(character)) {
      if (word !== '') words.push(word);
      word = '';
    } else if (!isQuote || depth > 0) word += character;
  }
  return word === '' ? words : [...words, word];
}
