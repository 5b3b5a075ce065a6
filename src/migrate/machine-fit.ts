/** Whether what arrives is what a machine was started for. */
import type { RamBlock } from '../vm/ram-block.ts';
import { formatUuid } from '../vm/uuid.ts';
import type { Machine } from './machine.ts';
import type { IncomingSource } from './receive-options.ts';

/** What was stated about the machine when it was started. A source that does not fit is refused. */
export interface ExpectedMachine {
  machine?: string | undefined;
  /** Bytes of its RAM. */
  memory?: number | undefined;
}

/** Compares a source with a machine. @throws Error with QEMU's text if it does not fit */
export function requireFit(
  { settings, uuid }: Machine,
  expected: ExpectedMachine,
  { configuration, blocks, hasAdvice, channels }: IncomingSource,
  report: (text: string) => void,
): void {
  const { machine = configuration?.machine, memory } = expected;
  if (configuration !== undefined && configuration.machine !== machine) {
    throw new Error(`Machine type received is '${configuration.machine}' and local is '${machine}'`);
  }
  const received = configuration?.uuid;
  if (received !== undefined && uuid !== undefined && received !== uuid) {
    throw new Error(`UUID received is ${formatUuid(received)} and local is ${formatUuid(uuid)}`);
  }
  if (received !== undefined && uuid === undefined) {
    report(`UUID is received ${formatUuid(received)}, but local uuid isn't set`);
  }
  requireSameSwitch(
    'x-ignore-shared',
    settings.isOn('x-ignore-shared'),
    configuration?.capabilities.includes('x-ignore-shared') === true,
  );
  if (hasAdvice && !settings.isOn('postcopy-ram')) throw new Error('RAM postcopy is disabled but have 16 byte advise');
  if (channels > 0 && !settings.isOn('multifd')) throw new Error('Not a migration stream');
  if (memory !== undefined) requireMemory(blocks, memory);
}

function requireSameSwitch(capability: string, here: boolean, there: boolean): void {
  if (here === there) return;
  const words = (on: boolean) => (on ? 'on' : 'off');
  throw new Error(`Capability ${capability} is ${words(here)}, but received capability is ${words(there)}`);
}

/** The largest block is the one that the machine's memory is in. */
function requireMemory(blocks: readonly RamBlock[], memory: number): void {
  const main = [...blocks].sort((a, b) => b.usedLength - a.usedLength)[0];
  if (main === undefined || main.usedLength === memory) return;
  const hex = (bytes: number) => `0x${bytes.toString(16)}`;
  throw new Error(`Size mismatch: ${main.idstr}: ${hex(main.usedLength)} != ${hex(memory)}: Invalid argument`);
}
