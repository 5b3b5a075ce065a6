/**
 * The guest of a core file: the form that QEMU chooses for its architecture, and the notes of its CPUs. Facts that differ
 * between releases of QEMU were compared with 7.2 and 10.0.
 */
import { type Architecture, architectureOf } from '../../../devices/cpu-architecture.ts';
import { readCpuRegisters } from '../../../devices/cpu-registers.ts';
import { BadCpuState } from '../../../devices/cpu-values.ts';
import type { DeviceState, StateStruct } from '../../../devices/device-state.ts';
import { type ByteSource, placeIn } from '../../../io/byte-source.ts';
import { releaseOf } from '../../../schema/release.ts';
import { MigrationError, type Place } from '../../../vm/migration-error.ts';
import { arm32Notes, arm64Notes, isArm64 } from './arm-notes.ts';
import type { CoreHeader, CoreSegment } from './elf-core.ts';
import { isLittleEndianPpc, ppcNotes } from './ppc-notes.ts';
import { riscvNotes } from './riscv-notes.ts';
import { s390xFormat, s390xNotes } from './s390x-notes.ts';
import { type CoreFormat, type CoreNote, encodeNotes } from './struct-writer.ts';
import { type FoundNote, findGuestNote, type GuestNote, type LeftNote } from './vmcoreinfo.ts';
import { chooseX86Core, x86Notes } from './x86-notes.ts';

/** What a core file says about its guest. */
export interface CoreGuest extends CoreHeader {
  cpus: number;
  /** The note that the guest left. */
  guestNote?: GuestNote;
  /** What is wrong with the note that the guest left, in QEMU's words. */
  warning?: string;
}

/** What is known about a guest. */
export interface GuestFacts {
  /** For errors. */
  source: ByteSource;
  /** Machine type. */
  machine: string | undefined;
  devices: readonly DeviceState[];
  segments: readonly CoreSegment[];
  /** What the guest left for its dumps. */
  left: LeftNote;
}

/** More CPUs than QEMU allows in a PC. */
const maxCpus = 8192;

/**
 * Describes the guest of a core file.
 * @throws MigrationError `unsupported` if the state of the CPUs has no description, lacks registers, or is that of an
 *   architecture without core files
 */
export function describeGuest(facts: GuestFacts): CoreGuest {
  const { devices, segments } = facts;
  const cpus = findCpus(facts);
  const architecture = architectureOf(devices) ?? 'x86';
  const isOld = isBefore9(facts);
  const form = encode(architecture, cpus, facts, isOld);
  const notes = encodeNotes(form.notes, form.format);
  const found = findGuestNote(facts.left, form.format);
  return {
    ...{ format: form.format, machine: form.machine, segments, cpus: cpus.length },
    ...withNote(notes, found),
  };
}

function withNote(notes: Uint8Array, { note, warning }: FoundNote): Pick<CoreGuest, 'notes' | 'guestNote' | 'warning'> {
  if (note === undefined) return { notes, ...(warning === undefined ? {} : { warning }) };
  const all = new Uint8Array(notes.length + note.bytes.length);
  all.set(notes);
  all.set(note.bytes, notes.length);
  return { notes: all, guestNote: note };
}

/**
 * Whether QEMU before 9.0 wrote the stream: it does not save whether the guest was suspended. Without a description, the
 * machine type decides.
 */
function isBefore9({ devices, machine }: GuestFacts): boolean {
  const state = devices.find(({ name }) => name === 'globalstate')?.state;
  const isDescribed = state?.fields.some(({ name }) => name === 'runstate') === true && state.fields.length > 1;
  if (state !== undefined && isDescribed && !state.fields.some(({ name }) => name === 'rest')) {
    return !state.fields.some(({ name }) => name === 'vm_was_suspended');
  }
  return (releaseOf(machine ?? '') ?? 0) < 900;
}

type Form = Pick<CoreHeader, 'format' | 'machine'> & { notes: CoreNote[] };

const littleEndian: CoreFormat = { elfClass: 64, littleEndian: true };
const elfMachines = { ppc64: 21, s390x: 22, arm: 40, aarch64: 183, riscv: 243 } as const;

function encode(architecture: Architecture, cpus: readonly DeviceState[], facts: GuestFacts, isOld: boolean): Form {
  const [first] = cpus;
  const each = (notesOf: (state: StateStruct, index: number) => CoreNote[]): CoreNote[] =>
    cpus.flatMap((cpu) => reading(facts, cpu, () => notesOf(cpu.state as StateStruct, cpu.instanceId)));
  const ofFirst = <T>(read: (state: StateStruct) => T): T =>
    reading(facts, first as DeviceState, () => read((first as DeviceState).state as StateStruct));
  switch (architecture) {
    case 'x86': {
      const registers = cpus.map((cpu) => reading(facts, cpu, () => readCpuRegisters(cpu)));
      const chosen = chooseX86Core(registers, facts.segments);
      return { ...chosen, notes: x86Notes(registers, chosen.machine) };
    }
    case 'arm': {
      if (!ofFirst(isArm64)) {
        const format: CoreFormat = { elfClass: 32, littleEndian: true };
        return { format, machine: elfMachines.arm, notes: each(arm32Notes) };
      }
      const notes = each((state, index) => arm64Notes(state, index, littleEndian));
      return { format: littleEndian, machine: elfMachines.aarch64, notes };
    }
    case 's390x': {
      const notes = each((state, index) => s390xNotes(state, index, { swapsNumber: isOld }));
      return { format: s390xFormat, machine: elfMachines.s390x, notes };
    }
    case 'ppc': {
      const format: CoreFormat = { elfClass: 64, littleEndian: ofFirst(isLittleEndianPpc) };
      const notes = each((state, index) => ppcNotes(state, index, { format, hasNumber: !isOld }));
      return { format, machine: elfMachines.ppc64, notes };
    }
    case 'riscv':
      return { format: littleEndian, machine: elfMachines.riscv, notes: each(riscvNotes) };
  }
}

/** The CPUs in the order of the stream, which is that of their creation. */
function findCpus({ source, devices }: GuestFacts): DeviceState[] {
  const states = devices.filter(({ name }) => name === 'cpu');
  if (states.length === 0) throw new MigrationError('unsupported', 'the file has no CPU state', placeIn(source, 0));
  if (states.length > maxCpus) {
    const message = `expected at most ${maxCpus} CPUs, got ${states.length}`;
    throw new MigrationError('limit-exceeded', message, placeIn(source, states[maxCpus]?.offset ?? 0));
  }
  for (const cpu of states) {
    if (cpu.state !== undefined) continue;
    const message = `the registers of CPU ${cpu.instanceId} cannot be read: ${cpu.problem}`;
    throw new MigrationError('unsupported', message, placeOf(source, cpu));
  }
  return states;
}

const placeOf = (source: GuestFacts['source'], { offset }: DeviceState): Place => ({
  ...placeIn(source, offset),
  section: 'cpu',
});

function reading<T>({ source }: GuestFacts, cpu: DeviceState, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof BadCpuState)) throw error;
    throw new MigrationError('unsupported', `CPU ${cpu.instanceId}: ${error.message}`, placeOf(source, cpu));
  }
}
