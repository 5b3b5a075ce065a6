/** The values of `vmferry vm`'s options: workloads, and addresses. */
import { InvalidArgumentError } from 'commander';
import type { WorkloadOptions } from '../../guest/workload.ts';
import { parseRate, parseSize } from '../../read/units.ts';
import { uuidDigits } from '../convert/multifd.ts';

const patterns = ['counter', 'random', 'text', 'zero'] as const;

/** Parses `write:rate=64M,working-set=32M,pattern=counter,seed=N`. */
export function parseWorkload(text: string): WorkloadOptions {
  const [, rest] = /^write(?::(.*))?$/s.exec(text) ?? [];
  if (!text.startsWith('write')) throw new InvalidArgumentError('expected write:rate=RATE,working-set=SIZE,...');
  const workload: WorkloadOptions = { rate: 64 << 20, workingSet: 32 << 20 };
  for (const part of rest === undefined || rest === '' ? [] : rest.split(',')) {
    const [name = '', value = ''] = part.split('=');
    setPart(workload, name, value);
  }
  return workload;
}

function setPart(workload: WorkloadOptions, name: string, value: string): void {
  const pattern = patterns.find((each) => each === value);
  try {
    if (name === 'rate') workload.rate = parseRate(value);
    else if (name === 'working-set') workload.workingSet = parseSize(value);
    else if (name === 'pattern' && pattern !== undefined) workload.pattern = pattern;
    else if (name === 'seed' && /^\d{1,9}$/.test(value)) workload.seed = Number(value);
    else
      throw new RangeError(
        `expected rate=, working-set=, pattern=${patterns.join('|')} or seed=N, got "${name}=${value}"`,
      );
  } catch (error) {
    throw error instanceof RangeError ? new InvalidArgumentError(error.message) : error;
  }
}

/** Parses the pages of a dirty ring. */
export function parseRingSize(text: string): number {
  const pages = Number(text);
  if (/^\d+$/.test(text) && pages >= 1024 && pages <= 65536 && Number.isInteger(Math.log2(pages))) return pages;
  throw new InvalidArgumentError(`expected a power of two from 1024 to 65536, got "${text}"`);
}

/** Parses a UUID, to 32 hex digits. */
export function parseUuid(text: string): string {
  const digits = uuidDigits(text);
  if (digits !== '') return digits;
  throw new InvalidArgumentError(`expected a UUID, got "${text}"`);
}
