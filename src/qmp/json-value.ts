/**
 * JSON values as QMP has them: integers of 64 bits are exact, and 1.0 is not an integer. Printed as QEMU prints them, on
 * one line, in ASCII.
 */

/** An integer is a number if a number holds it exactly, and otherwise a bigint. */
export type JsonValue = null | boolean | number | bigint | string | JsonDouble | JsonValue[] | JsonObject;
/** An object of JSON. */
export interface JsonObject {
  [name: string]: JsonValue;
}

/** A number that was written with a fraction or an exponent, or that no 64-bit integer holds. */
export class JsonDouble {
  constructor(readonly value: number) {}
}

export const isObject = (value: JsonValue | undefined): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof JsonDouble);

/** Sets a member of its own, also one that is called `__proto__`. */
export function setMember(object: JsonObject, name: string, value: JsonValue): void {
  if (name !== '__proto__') object[name] = value;
  else Object.defineProperty(object, name, { value, enumerable: true, configurable: true, writable: true });
}

/** Doubles as plain numbers, for those to whom 1 and 1.0 are the same. */
export function plainValue(value: JsonValue): unknown {
  if (value instanceof JsonDouble) return value.value;
  if (Array.isArray(value)) return value.map(plainValue);
  if (!isObject(value)) return value;
  const object: JsonObject = {};
  for (const [name, member] of Object.entries(value)) setMember(object, name, plainValue(member) as JsonValue);
  return object;
}

/**
 * The text of a value. Members that are undefined are left out.
 * @throws TypeError for what JSON does not have, such as a function
 */
export const printJson = (value: unknown): string => print(value, doubleText);

/** The same for a peer that tells 1.0 from 1: a double is read as a double. */
export const printExactJson = (value: unknown): string => print(value, exactDoubleText);

function print(value: unknown, double: typeof doubleText): string {
  switch (typeof value) {
    case 'string':
      return printString(value);
    case 'number':
      return Number.isInteger(value) && Math.abs(value) < 2 ** 64 ? integerText(value) : double(value);
    case 'bigint':
    case 'boolean':
      return String(value);
    case 'object':
      return printObject(value, double);
    default:
      throw new TypeError(`expected a JSON value, got ${typeof value}`);
  }
}

function printObject(value: object | null, double: typeof doubleText): string {
  if (value === null) return 'null';
  if (value instanceof JsonDouble) return double(value.value);
  if (Array.isArray(value)) return `[${value.map((item) => print(item, double)).join(', ')}]`;
  const members = Object.entries(value).filter(([, member]) => member !== undefined);
  return `{${members.map(([name, member]) => `${printString(name)}: ${print(member, double)}`).join(', ')}}`;
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is escaped.
const escaped = /["\\\u0000-\u001f\u007f-\uffff]/g;
const short: Readonly<Record<string, string>> = {
  ...{ '"': '\\"', '\\': '\\\\', '\b': '\\b' },
  ...{ '\f': '\\f', '\n': '\\n', '\r': '\\r', '\t': '\\t' },
};

function printString(text: string): string {
  const escapeUnit = (unit: string) =>
    short[unit] ?? `\\u${unit.charCodeAt(0).toString(16).toUpperCase().padStart(4, '0')}`;
  return `"${text.replace(escaped, escapeUnit)}"`;
}

/** All digits, also where JavaScript would round. */
const integerText = (value: number) => (Number.isSafeInteger(value) ? String(value) : String(BigInt(value)));

/** As C prints it with %.17g: the digits that make it exact, also if fewer would do. */
function doubleText(value: number): string {
  if (Number.isNaN(value)) return 'nan';
  if (!Number.isFinite(value)) return value > 0 ? 'inf' : '-inf';
  if (Object.is(value, -0)) return '-0';
  const [digits = '', exponentText = '0'] = value.toExponential(16).split('e');
  const exponent = Number(exponentText);
  if (exponent >= -4 && exponent < 17) return trimZeros(value.toFixed(16 - exponent));
  const sign = exponent < 0 ? '-' : '+';
  return `${trimZeros(digits)}e${sign}${String(Math.abs(exponent)).padStart(2, '0')}`;
}

function exactDoubleText(value: number): string {
  if (!Number.isFinite(value)) return value > 0 ? '1e999' : '-1e999';
  const text = doubleText(value);
  return /[.e]/.test(text) ? text : `${text}.0`;
}

const trimZeros = (text: string) => (text.includes('.') ? text.replace(/\.?0+$/, '') : text);
