/** Hand-written migration files with device state, and dumps of imaginary QEMUs: both sides of a check. */
import {
  blockList,
  capabilities,
  configuration,
  counted,
  EOF,
  EOS,
  end,
  footer,
  header,
  join,
  KIB4,
  subsection,
  u32,
  vmdescription,
} from '../oracle/build.ts';

export interface Field {
  json: Record<string, unknown>;
  bytes: Uint8Array;
}

export interface State {
  name: string;
  version: number;
  fields: Field[];
  subsections?: State[];
}

/** A number of 4 bytes, and one of 1 byte. */
export const word = (name: string, value = 0, type = 'uint32'): Field => ({
  json: { name, type, size: 4 },
  bytes: join(u32(value)),
});
export const byte = (name: string, value = 0): Field => ({
  json: { name, type: 'uint8', size: 1 },
  bytes: join([value]),
});
export const bytes = (name: string, size: number, type = 'buffer'): Field => ({
  json: { name, type, size },
  bytes: new Uint8Array(size),
});
export const words = (name: string, values: number[]): Field => ({
  json: { name, type: 'uint32', size: 4, array_len: values.length },
  bytes: join(...values.map(u32)),
});
export const raw = (name: string, type: string, content: Uint8Array): Field => ({
  json: { name, type, size: content.length },
  bytes: content,
});
/** Elements one by one; QEMU omits the index of a single one. */
export const structs = (name: string, ...states: State[]): Field[] =>
  states.map((state, index) => ({
    json: { name, ...(states.length > 1 ? { index } : {}), type: 'struct', ...nested(state) },
    bytes: bodyOf(state),
  }));

const nested = (state: State) => ({ struct: jsonOf(state), size: bodyOf(state).length });

function jsonOf({ name, version, fields, subsections = [] }: State): Record<string, unknown> {
  return {
    vmsd_name: name,
    version,
    fields: fields.map(({ json }) => json),
    ...(subsections.length > 0 ? { subsections: subsections.map(jsonOf) } : {}),
  };
}

function bodyOf({ fields, subsections = [] }: State): Uint8Array {
  const inner = subsections.map((each) => join([5], counted(each.name), u32(each.version), bodyOf(each)));
  return join(...fields.map((field) => field.bytes), ...inner);
}

export interface Device {
  /** idstr; default: the name of the state. */
  idstr?: string;
  instance?: number;
  /** Of the section; default: the state's. */
  version?: number;
  state: State;
}

export interface Saved {
  /** Undefined: no configuration section. */
  machine?: string | undefined;
  capabilities?: string[];
  uuid?: string;
  blocks?: [idstr: string, pages: number][];
  /** Further items: before the RAM sections, and between them. */
  before?: Uint8Array[];
  between?: Uint8Array[];
  /** Default: QEMU 10.0's, which include SWITCHOVER_START. */
  switchover?: boolean;
  devices?: Device[];
  footers?: boolean;
  described?: boolean;
}

const switchoverStart = join([8, 0, 11, 0, 0]);

/** A file as QEMU writes it, without pages. */
export function savedFile(saved: Saved = {}): Uint8Array {
  const { blocks = [['pc.ram', 16]], devices = [], before = [], between = [], footers = true } = saved;
  const { machine = 'pc-i440fx-10.0', uuid, switchover = true, described = true } = saved;
  const parts = [
    ...(saved.capabilities === undefined ? [] : [capabilities(...saved.capabilities)]),
    ...(uuid === undefined ? [] : [subsection('configuration/uuid', Buffer.from(uuid, 'hex'))]),
  ];
  const list = blockList(...blocks.map(([idstr, pages]): [string, number] => [idstr, pages * KIB4]));
  const ended = (section: Uint8Array) => (footers ? section : section.subarray(0, section.length - 5));
  const start = join([1], u32(1), counted('ram'), u32(0), u32(4), list, EOS, footer(1));
  const sections = devices.map(({ state, idstr = state.name, instance = 0, version = state.version }, i) => {
    const head = join([4], u32(i + 2), counted(idstr), u32(instance), u32(version));
    return ended(join(head, bodyOf(state), footer(i + 2)));
  });
  const description = devices.map(({ state, idstr = state.name, instance = 0, version = state.version }) => ({
    name: idstr,
    instance_id: instance,
    ...jsonOf(state),
    version,
  }));
  return join(
    header,
    'machine' in saved && saved.machine === undefined ? [] : configuration(machine, ...parts),
    ...before,
    ended(start),
    ...between,
    switchover ? switchoverStart : [],
    ended(end(1, EOS)),
    ...sections,
    EOF,
    described ? vmdescription({ page_size: KIB4, devices: description }) : [],
  );
}

/** A field of a dump; `since` is its version. */
interface DumpField {
  name: string;
  size: number;
  since?: number;
  conditional?: boolean;
  nested?: DumpState;
}

export interface DumpState {
  name: string;
  version: number;
  minimum?: number;
  fields?: DumpField[];
  subsections?: DumpState[];
}

const dumpedState = ({ name, version, minimum = version, fields = [], subsections = [] }: DumpState): object => ({
  name,
  version_id: version,
  minimum_version_id: minimum,
  ...(fields.length > 0 ? { Fields: fields.map(dumpedField) } : {}),
  ...(subsections.length > 0 ? { Subsections: subsections.map(dumpedState) } : {}),
});

const dumpedField = ({ name, size, since = 0, conditional = false, nested: inner }: DumpField): object => ({
  field: name,
  version_id: since,
  field_exists: conditional,
  size,
  ...(inner === undefined ? {} : { Description: dumpedState(inner) }),
});

/** The output of -dump-vmstate for these device types; a type is named like its state, with the suffix `-device`. */
export function dumpText(states: DumpState[], machine: string | undefined = 'pc-i440fx-10.0'): string {
  const types = states.map((state, i) => {
    const { version, minimum = version } = state;
    const type = `${state.name}-device${i}`;
    const versions = { version_id: version, minimum_version_id: minimum };
    return [type, { Name: type, ...versions, Description: dumpedState(state) }];
  });
  return JSON.stringify({ vmschkmachine: { Name: machine }, ...Object.fromEntries(types) }, null, 2);
}
