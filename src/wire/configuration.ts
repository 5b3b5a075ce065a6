/**
 * The CONFIGURATION body (docs/formats/stream.md, "Configuration"):
 *
 *     be32 length | machine name | subsections: u8 0x05, counted name, be32 version, fields
 *
 *     configuration/target-page-bits   be32 bits
 *     configuration/capabilities       be32 count, counted strings
 *     configuration/uuid               16 bytes
 *     configuration/vmferry-changes    two ids of 8 bytes; not QEMU's (docs/formats/incremental.md)
 */
import type { ChangesIds, Configuration } from '../vm/flow.ts';
import { MigrationError } from '../vm/migration-error.ts';
import { type ByteWindow, has, latin1, type Need, need, takeBytes, takeString, takeU32 } from './byte-window.ts';
import type { ByteWriter } from './byte-writer.ts';
import { SectionType } from './section-type.ts';

const subsectionByte = 0x05;
const prefix = 'configuration/';
const maxMachineName = 1024;
const maxCapabilities = 256;

/**
 * Marks a mapped-ram file that holds only the changes since another one. No QEMU knows this capability, so none loads
 * such a file.
 */
export const changesCapability = 'vmferry-changes';
const idBytes = 8;
const uuidBytes = 16;

/** Decodes the body; the CONFIGURATION byte has been read. */
export function* decodeConfiguration(window: ByteWindow): Generator<Need, Configuration> {
  const length = yield* takeU32(window, 'the length of the machine name');
  if (length > maxMachineName) {
    throw bad(window, `expected a machine name of at most ${maxMachineName} bytes, got ${length}`, 4);
  }
  yield* need(window, length, 'the machine name');
  const configuration: Configuration = { machine: latin1(window.bytes, window.position, length), capabilities: [] };
  window.position += length;
  while (yield* atSubsection(window)) {
    const start = window.offset;
    window.position += 1;
    const name = yield* takeString(window, 'a subsection name');
    const version = yield* takeU32(window, 'a subsection version');
    if (version !== 1) throw bad(window, `expected version 1 of ${name}, got ${version}`, 4);
    if (name === `${prefix}target-page-bits`) {
      const bits = yield* takeU32(window, 'target page bits');
      if (bits < 10 || bits > 16) throw bad(window, `expected target page bits from 10 to 16, got ${bits}`, 4);
      configuration.targetPageBits = bits;
    } else if (name === `${prefix}capabilities`) {
      const count = yield* takeU32(window, 'the number of capabilities');
      if (count > maxCapabilities)
        throw bad(window, `expected at most ${maxCapabilities} capabilities, got ${count}`, 4);
      for (let i = 0; i < count; i++) configuration.capabilities.push(yield* takeString(window, 'a capability name'));
    } else if (name === `${prefix}uuid`) {
      const bytes = yield* takeBytes(window, 16, 'the guest UUID');
      configuration.uuid = toHex(bytes);
    } else if (name === `${prefix}${changesCapability}`) {
      const ids = toHex(yield* takeBytes(window, 2 * idBytes, 'the ids of the changes'));
      configuration.changes = { base: ids.slice(0, 2 * idBytes), content: ids.slice(2 * idBytes) };
    } else {
      throw new MigrationError('bad-configuration', `unknown subsection "${name}"`, window.place(start));
    }
  }
  requireChanges(window, configuration);
  return configuration;
}

/** Requires that the capability and the subsection for changes occur together, or not at all. */
function requireChanges(window: ByteWindow, { capabilities, changes }: Configuration): void {
  const isSaid = capabilities.includes(changesCapability);
  if (isSaid === (changes !== undefined) && (!isSaid || capabilities.includes('mapped-ram'))) return;
  const both = `mapped-ram, ${changesCapability} and the subsection of that name`;
  throw bad(window, `expected all or none of a file of changes: ${both}`, 0);
}

const toHex = (bytes: Uint8Array) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');

/** Whether a subsection of the configuration begins here: 0x05, a long enough name, and the prefix. */
function* atSubsection(window: ByteWindow): Generator<Need, boolean> {
  if (!(yield* has(window, 2 + prefix.length))) return false;
  const { bytes, position } = window;
  return (
    bytes[position] === subsectionByte &&
    (bytes[position + 1] as number) > prefix.length &&
    latin1(bytes, position + 2, prefix.length) === prefix
  );
}

function bad(window: ByteWindow, message: string, back: number): MigrationError {
  return new MigrationError('bad-configuration', message, window.place(window.offset - back));
}

/**
 * Encodes the configuration, including its type byte. The uuid is 32 hex digits, and each id of changes is 16.
 * @throws RangeError for a configuration that no reader would accept.
 */
export function encodeConfiguration(out: ByteWriter, configuration: Configuration): void {
  const { machine, capabilities } = configuration;
  if (machine.length > maxMachineName) {
    throw new RangeError(`expected a machine name of at most ${maxMachineName} bytes, got ${machine.length}`);
  }
  if (capabilities.length > maxCapabilities) {
    throw new RangeError(`expected at most ${maxCapabilities} capabilities, got ${capabilities.length}`);
  }
  out.u8(SectionType.configuration).u32(configuration.machine.length).text(configuration.machine);
  const subsection = (name: string) => out.u8(subsectionByte).string(`${prefix}${name}`).u32(1);
  if (configuration.targetPageBits !== undefined) subsection('target-page-bits').u32(configuration.targetPageBits);
  if (configuration.capabilities.length > 0) {
    subsection('capabilities').u32(configuration.capabilities.length);
    for (const name of configuration.capabilities) out.string(name);
  }
  if (configuration.uuid !== undefined) {
    subsection('uuid').hex(configuration.uuid, uuidBytes);
  }
  if (configuration.changes !== undefined) {
    const { base, content }: ChangesIds = configuration.changes;
    subsection(changesCapability).hex(base, idBytes).hex(content, idBytes);
  }
}
