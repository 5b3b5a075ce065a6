/**
 * Finds out how a CPU translates virtual addresses, from its saved registers (docs/formats/paging.md): x86 with two to five levels,
 * ARM in AArch64 state, RISC-V with 64 bits.
 */
import { architectureOfCpu } from '../../devices/cpu-architecture.ts';
import { BadCpuState, readUnsigned } from '../../devices/cpu-values.ts';
import type { DeviceState } from '../../devices/device-state.ts';
import { findValue } from '../../devices/find-value.ts';
import { type ByteSource, placeIn } from '../../io/byte-source.ts';
import { MigrationError } from '../../vm/migration-error.ts';
import { armTables } from './arm-paging.ts';
import { type Paging, type ReadRegister, UnknownPaging } from './paging.ts';
import { riscvTables } from './riscv-paging.ts';
import { x86Tables } from './x86-paging.ts';

/**
 * @param root replaces the register that has the root of the page tables: CR3, TTBR0 or satp
 * @throws UnknownPaging, BadCpuState
 */
function pagingOf(cpu: DeviceState, root?: bigint): Paging {
  const { state, problem } = cpu;
  if (state === undefined) throw new UnknownPaging(`its state cannot be read: ${problem}`);
  const read: ReadRegister = (path) => readUnsigned(state, path);
  switch (architectureOfCpu(state)) {
    case 'x86':
      return x86Tables(read, findValue(state, 'env.efer') !== undefined, root);
    case 'arm':
      return armTables(state, read, root);
    case 'riscv':
      return riscvTables(read, root);
    default:
      throw new UnknownPaging('page tables are known of x86, ARM (AArch64) and RISC-V');
  }
}

/** @throws RangeError if there is no such CPU */
export function chooseCpu(devices: readonly DeviceState[], wanted: number): DeviceState {
  const cpus = devices.filter(({ name }) => name === 'cpu');
  const cpu = cpus.find(({ instanceId }) => instanceId === wanted) ?? cpus[wanted];
  if (cpu !== undefined) return cpu;
  const got = cpus.length === 0 ? 'a file without the state of a CPU' : `${wanted}`;
  throw new RangeError(`expected a CPU from 0 to ${Math.max(0, cpus.length - 1)}, got ${got}`);
}

/**
 * Like {@link pagingOf}, with errors that say which CPU and where.
 * @throws MigrationError `unsupported`
 */
export function readPaging(source: ByteSource, cpu: DeviceState, root: bigint | undefined): Paging {
  try {
    return pagingOf(cpu, root);
  } catch (error) {
    if (!(error instanceof UnknownPaging || error instanceof BadCpuState)) throw error;
    const place = { ...placeIn(source, cpu.offset), section: 'cpu' };
    throw new MigrationError('unsupported', `virtual addresses of CPU ${cpu.instanceId}: ${error.message}`, place);
  }
}
