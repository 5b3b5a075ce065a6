/**
 * Makes JSON values of tokens, with the errors that QEMU gives. A message ends when all its brackets are closed, so it may
 * take any number of lines. After the first error of a message the rest of it is skipped.
 *
 *     tokens ──→ one value or error a message         {"a":}   → expecting value
 */
import { JsonDouble, type JsonObject, type JsonValue, setMember } from './json-value.ts';

/** A message: a value, or what is wrong with it. */
export type JsonMessage = { readonly value: JsonValue } | { readonly error: string };

export type JsonToken =
  | { readonly type: '{' | '}' | '[' | ']' | ':' | ',' }
  | { readonly type: 'value'; readonly value: JsonValue; readonly size: number }
  | { readonly type: 'invalid'; readonly error: string; readonly size: number };

/** QEMU's own limits for one message. */
export interface JsonLimits {
  /** Brackets that are open at the same time. */
  readonly depth: number;
  readonly tokens: number;
  /** Bytes of all tokens. */
  readonly bytes: number;
}
export const qemuLimits: JsonLimits = { depth: 1024, tokens: 2 ** 21, bytes: 2 ** 26 };

type Frame =
  | { value: JsonObject; key: string; expects: 'first key' | 'key' | 'colon' | 'value' | 'separator' }
  | { value: JsonValue[]; expects: 'first item' | 'value' | 'separator' };

export class JsonParser {
  #frames: Frame[] = [];
  #error: string | undefined;
  #result: JsonValue | undefined;
  #braces = 0;
  #brackets = 0;
  #tokens = 0;
  #bytes = 0;

  constructor(
    readonly limits: JsonLimits,
    readonly emit: (message: JsonMessage) => void,
  ) {}

  /** Gives the message up that is being read. */
  fail(error: string): void {
    this.#reset();
    this.emit({ error: `JSON parse error, ${error}` });
  }

  /** Whether a message has begun, and not ended. */
  get isOpen(): boolean {
    return this.#braces >= 0 && this.#brackets >= 0 && this.#braces + this.#brackets > 0;
  }

  take(token: JsonToken): void {
    this.#count(token);
    if (this.#error === undefined) this.#parse(token);
    if (this.isOpen) this.#checkLimits();
    else if (this.#error !== undefined) this.fail(this.#error);
    else {
      const value = this.#result as JsonValue;
      this.#reset();
      this.emit({ value });
    }
  }

  #reset(): void {
    this.#frames = [];
    this.#error = undefined;
    this.#result = undefined;
    this.#braces = this.#brackets = this.#tokens = this.#bytes = 0;
  }

  #count(token: JsonToken): void {
    this.#tokens++;
    if (token.type === '{') this.#braces++;
    else if (token.type === '}') this.#braces--;
    else if (token.type === '[') this.#brackets++;
    else if (token.type === ']') this.#brackets--;
    this.#bytes += 'size' in token ? token.size : 1;
  }

  #checkLimits(): void {
    const { depth, tokens, bytes } = this.limits;
    if (this.#bytes > bytes) this.exceed('JSON token size limit exceeded');
    else if (this.#tokens > tokens) this.exceed('JSON token count limit exceeded');
    else if (this.#braces + this.#brackets > depth) this.exceed('JSON nesting depth limit exceeded');
  }

  /** Gives the message up because it is larger than any limit. */
  exceed(error: string): void {
    this.#reset();
    this.emit({ error });
  }

  #parse(token: JsonToken): void {
    const frame = this.#frames.at(-1);
    const expects = frame?.expects;
    const closes = token.type === (Array.isArray(frame?.value) ? ']' : '}');
    if (frame !== undefined && expects === 'colon') {
      if (token.type === ':') frame.expects = 'value';
      else this.#error = 'missing : in object pair';
    } else if (closes && (expects === 'separator' || expects === 'first key' || expects === 'first item')) {
      this.#complete((this.#frames.pop() as Frame).value);
    } else if (frame !== undefined && expects === 'separator') this.#separate(frame, token);
    else this.#begin(token);
  }

  #separate(frame: Frame, token: JsonToken): void {
    if ('key' in frame) {
      if (token.type === ',') frame.expects = 'key';
      else this.#error = 'expected separator in dict';
    } else if (token.type === ',') frame.expects = 'value';
    else this.#error = 'expected separator in list';
  }

  #begin(token: JsonToken): void {
    if (token.type === 'value') this.#complete(token.value);
    else if (token.type === 'invalid') this.#error = token.error;
    else if (token.type === '{') this.#frames.push({ value: {}, key: '', expects: 'first key' });
    else if (token.type === '[') this.#frames.push({ value: [], expects: 'first item' });
    else this.#error = 'expecting value';
  }

  /** A value is whole: it belongs to the innermost frame. */
  #complete(value: JsonValue): void {
    const frame = this.#frames.at(-1);
    if (frame === undefined) {
      this.#result = value;
    } else if (Array.isArray(frame.value)) {
      frame.value.push(value);
      frame.expects = 'separator';
    } else {
      this.#member(frame as Frame & { key: string }, value);
    }
  }

  #member(frame: Frame & { key: string }, value: JsonValue): void {
    const object = frame.value as JsonObject;
    if (frame.expects !== 'value') {
      if (typeof value !== 'string') {
        this.#error = 'key is not a string in object';
        return;
      }
      frame.key = value;
      frame.expects = 'colon';
    } else if (Object.hasOwn(object, frame.key)) {
      this.#error = 'duplicate key';
    } else {
      setMember(object, frame.key, value);
      frame.expects = 'separator';
    }
  }
}

/** The value of a number's text: an integer as long as 64 bits hold it. */
export function numberOf(text: string): JsonValue {
  if (/[.eE]/.test(text)) return new JsonDouble(Number(text));
  const number = Number(text);
  if (Number.isSafeInteger(number)) return number + 0;
  if (text.length > 20) return new JsonDouble(number);
  const integer = BigInt(text);
  return integer >= -(2n ** 63n) && integer < 2n ** 64n ? integer : new JsonDouble(number);
}
