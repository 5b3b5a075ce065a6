/**
 * A device's state as JSON, in pieces, one line per field, because a device may have megabytes of state. Bytes are hex,
 * integers beyond 2^53 are decimal text, and offsets count in the source.
 */
import { type DeviceState, isStruct, type StateField, type StateStruct, type StateValue } from './device-state.ts';
import { toHex } from './hex.ts';

/** Bytes that are turned into hex at a time. */
const hexPiece = 32_768;

/** Yields the JSON object of a device. `more` has further members, as JSON text by name. */
export function* deviceToJson(device: DeviceState, more: Record<string, string> = {}): Generator<string, void> {
  const { name, instanceId, versionId, offset, length, undecodedBytes, problem, state, data } = device;
  const facts = { name, instanceId, versionId, offset, length, undecodedBytes, problem: problem ?? null };
  for (const [i, [key, value]] of Object.entries(facts).entries()) {
    yield `${i === 0 ? '{' : ','}\n  "${key}": ${JSON.stringify(value)}`;
  }
  for (const [key, json] of Object.entries(more)) yield `,\n  "${key}": ${json}`;
  yield ',\n  "state": ';
  if (state !== undefined) yield* structToJson(state, offset, '  ');
  else {
    yield 'null,\n  "data": ';
    yield* bytesToJson(data);
  }
  yield '\n}\n';
}

function* structToJson(struct: StateStruct, base: number, indent: string): Generator<string, void> {
  const { vmsdName, version, offset, length } = struct;
  const facts = { vmsdName, version: version ?? null, offset: base + offset, length };
  yield `${JSON.stringify(facts).slice(0, -1)},"fields":[`;
  yield* listToJson(struct.fields, indent, (field) => fieldToJson(field, base, `${indent}  `));
  yield '],"subsections":[';
  yield* listToJson(struct.subsections, indent, (subsection) => structToJson(subsection, base, `${indent}  `));
  yield ']}';
}

function* fieldToJson(field: StateField, base: number, indent: string): Generator<string, void> {
  const { name, type, index, offset, length } = field;
  const facts = { name, type, ...(index === undefined ? {} : { index }), offset: base + offset, length };
  yield `${JSON.stringify(facts).slice(0, -1)},"value":`;
  yield* valueToJson(field.value, base, indent);
  yield '}';
}

function* valueToJson(value: StateValue, base: number, indent: string): Generator<string, void> {
  if (typeof value === 'bigint') yield `"${value}"`;
  else if (value instanceof Uint8Array) yield* bytesToJson(value);
  else if (isStruct(value)) yield* structToJson(value, base, indent);
  else if (!Array.isArray(value)) yield JSON.stringify(value);
  else if (!value.some((element) => typeof element === 'object' && element !== null)) {
    yield '[';
    for (const [i, element] of value.entries()) {
      if (i > 0) yield ',';
      yield* valueToJson(element, base, indent);
    }
    yield ']';
  } else {
    yield '[';
    yield* listToJson(value, indent, (element: StateValue) => valueToJson(element, base, `${indent}  `));
    yield ']';
  }
}

/** Each element on a line of its own. */
function* listToJson<Element>(
  elements: readonly Element[],
  indent: string,
  toJson: (element: Element) => Generator<string, void>,
): Generator<string, void> {
  for (const [i, element] of elements.entries()) {
    yield `${i === 0 ? '' : ','}\n${indent}  `;
    yield* toJson(element);
  }
}

function* bytesToJson(bytes: Uint8Array): Generator<string, void> {
  yield '"';
  for (let at = 0; at < bytes.length; at += hexPiece) {
    yield toHex(bytes.subarray(at, at + hexPiece));
  }
  yield '"';
}
