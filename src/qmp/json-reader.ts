/**
 * Reads JSON as QEMU does: from bytes as they come, at any boundary, with QEMU's leniency ('single quotes'), its limits
 * and its errors. A wrong token ends its message; reading goes on at the next bracket, colon, comma or control
 * character. The bytes 0xFE and 0xFF end whatever is being read.
 *
 *     bytes ──→ tokens ──→ JsonParser ──→ one value or error a message
 */
import { type JsonLimits, type JsonMessage, JsonParser, numberOf, qemuLimits } from './json-parser.ts';
import { unescapeString } from './json-string.ts';
import type { JsonValue } from './json-value.ts';

type State =
  | 'start'
  | 'recovery'
  | 'keyword'
  | 'string'
  | 'escape'
  | 'minus'
  | 'zero'
  | 'digits'
  | 'point'
  | 'fraction'
  | 'exponent'
  | 'exponent sign'
  | 'exponent digits';

/** States in which a number may end. */
const numberEnds: ReadonlySet<State> = new Set(['zero', 'digits', 'fraction', 'exponent digits']);

const code = (text: string) => text.charCodeAt(0);
const structural: ReadonlyMap<number, '{' | '}' | '[' | ']' | ':' | ','> = new Map(
  (['{', '}', '[', ']', ':', ','] as const).map((text) => [code(text), text]),
);
const [quote, apostrophe, backslash] = [code('"'), code("'"), code('\\')];
const isDigit = (byte: number) => byte >= 0x30 && byte <= 0x39;
const isLetter = (byte: number) => byte >= 0x61 && byte <= 0x7a;
const isSpace = (byte: number) => byte === 0x20 || byte === 0x09 || byte === 0x0d || byte === 0x0a;

export class JsonReader {
  readonly #parser: JsonParser;
  #state: State = 'start';
  #quote = 0;
  /** The bytes of a token that began in an earlier chunk. */
  #token = new Uint8Array(256);
  #length = 0;

  constructor(
    emit: (message: JsonMessage) => void,
    readonly limits: JsonLimits = qemuLimits,
  ) {
    this.#parser = new JsonParser(limits, emit);
  }

  /** Takes bytes, and emits the messages that end in them. */
  push(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) {
      if (this.#state === 'string') at = this.#string(bytes, at);
      else if (this.#step(bytes[at] as number)) at++;
    }
  }

  /** Whether a message has begun, and not ended. */
  get isInside(): boolean {
    return this.#state !== 'start' || this.#parser.isOpen;
  }

  /** Takes one byte. Returns false if it ended a token, and is still to be taken. */
  #step(byte: number): boolean {
    switch (this.#state) {
      case 'start':
        return this.#start(byte);
      case 'recovery':
        return this.#recover(byte);
      case 'keyword':
        if (!isLetter(byte)) return this.#end(this.#keyword());
        break;
      case 'escape':
        if (byte < 0x20 || byte > 0xfd) return this.#stray(byte);
        this.#state = 'string';
        break;
      default:
        return this.#number(byte);
    }
    this.#add(byte);
    return true;
  }

  #start(byte: number): boolean {
    if (isSpace(byte)) return true;
    const type = structural.get(byte);
    if (type !== undefined) {
      this.#parser.take({ type });
      return true;
    }
    if (byte === quote || byte === apostrophe) {
      this.#quote = byte;
      this.#state = 'string';
    } else if (byte === code('-')) this.#state = 'minus';
    else if (byte === code('0')) this.#state = 'zero';
    else if (isDigit(byte)) this.#state = 'digits';
    else if (isLetter(byte)) this.#state = 'keyword';
    else return this.#stray(byte);
    this.#add(byte);
    return true;
  }

  /** Skips to where a message may begin. */
  #recover(byte: number): boolean {
    const isBoundary = structural.has(byte) || (byte < 0x20 && byte !== 0x09) || byte > 0xfd;
    if (isBoundary) this.#state = 'start';
    return !isBoundary;
  }

  #number(byte: number): boolean {
    const next = nextState(this.#state, byte);
    if (next === 'end') return this.#end(this.#numberValue());
    if (next === undefined) return this.#stray(byte);
    this.#state = next;
    this.#add(byte);
    return true;
  }

  /** The rest of a string, as far as it is there. */
  #string(bytes: Uint8Array, from: number): number {
    let at = from;
    while (at < bytes.length) {
      const byte = bytes[at] as number;
      if (byte === this.#quote || byte === backslash || byte < 0x20 || byte > 0xfd) break;
      at++;
    }
    this.#addAll(bytes.subarray(from, at));
    if (at === bytes.length || this.#state !== 'string') return at;
    const byte = bytes[at] as number;
    if (byte === this.#quote) this.#end(unescapeString(this.#token.subarray(1, this.#length)));
    else if (byte !== backslash) this.#stray(byte);
    else {
      this.#add(byte);
      this.#state = 'escape';
    }
    return at + 1;
  }

  /** A token has ended. Returns false. */
  #end(token: { value: JsonValue } | { error: string }): boolean {
    const size = this.#length;
    this.#clear('start');
    if ('value' in token) this.#parser.take({ type: 'value', value: token.value, size });
    else this.#parser.take({ type: 'invalid', error: token.error, size });
    return false;
  }

  #keyword(): { value: JsonValue } | { error: string } {
    const text = this.#text();
    const values: Record<string, JsonValue> = { true: true, false: false, null: null };
    return Object.hasOwn(values, text) ? { value: values[text] as JsonValue } : { error: `invalid keyword '${text}'` };
  }

  #numberValue(): { value: JsonValue } {
    return { value: numberOf(this.#text()) };
  }

  /** The token is wrong at this byte. Returns true: it is a part of it. */
  #stray(byte: number): boolean {
    this.#add(byte);
    const [text = ''] = this.#text().split('\0');
    this.#clear('recovery');
    this.#parser.fail(`stray '${text}'`);
    return true;
  }

  #clear(state: State): void {
    this.#state = state;
    this.#length = 0;
    if (this.#token.length > 65536) this.#token = new Uint8Array(256);
  }

  #text(): string {
    return new TextDecoder().decode(this.#token.subarray(0, this.#length));
  }

  #add(byte: number): void {
    if (this.#length === this.#token.length) this.#grow(this.#length + 1);
    this.#token[this.#length++] = byte;
    if (this.#length > this.limits.bytes) this.#tooLong();
  }

  #addAll(bytes: Uint8Array): void {
    const length = this.#length + bytes.length;
    if (length > this.limits.bytes) {
      this.#tooLong();
      return;
    }
    this.#grow(length);
    this.#token.set(bytes, this.#length);
    this.#length = length;
  }

  #grow(size: number): void {
    if (size <= this.#token.length) return;
    const token = new Uint8Array(Math.max(size, this.#token.length * 2));
    token.set(this.#token.subarray(0, this.#length));
    this.#token = token;
  }

  #tooLong(): void {
    this.#clear('recovery');
    this.#parser.exceed('JSON token size limit exceeded');
  }
}

/** The state of a number after another byte. `end`: the byte does not belong to it. Undefined: it may not be there. */
function nextState(state: State, byte: number): State | 'end' | undefined {
  const digit = isDigit(byte);
  switch (state) {
    case 'minus':
      return byte === code('0') ? 'zero' : digit ? 'digits' : undefined;
    case 'point':
      return digit ? 'fraction' : undefined;
    case 'exponent':
      if (byte === code('+') || byte === code('-')) return 'exponent sign';
      return digit ? 'exponent digits' : undefined;
    case 'exponent sign':
      return digit ? 'exponent digits' : undefined;
  }
  if (digit) return state === 'zero' ? undefined : state;
  if (state !== 'exponent digits' && (byte === code('e') || byte === code('E'))) return 'exponent';
  if (byte === code('.') && (state === 'zero' || state === 'digits')) return 'point';
  return numberEnds.has(state) ? 'end' : undefined;
}

/** Reads one text that is there. @throws SyntaxError with QEMU's text */
export function parseJson(text: string): JsonValue {
  const messages: JsonMessage[] = [];
  const reader = new JsonReader((message) => messages.push(message));
  reader.push(new TextEncoder().encode(`${text}\n`));
  const [message, ...more] = messages;
  if (message === undefined || more.length > 0 || reader.isInside)
    throw new SyntaxError('JSON parse error, premature EOI');
  if ('error' in message) throw new SyntaxError(message.error);
  return message.value;
}
