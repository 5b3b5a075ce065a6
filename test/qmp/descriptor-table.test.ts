/** Sets of descriptors without a system, and how one of a set is chosen. */
import { expect, it } from 'vitest';
import { DescriptorTable } from '../../src/qmp/machine/descriptor-table.ts';
import { schemaOf } from '../../src/schema/qapi/schema.ts';

const [readOnly, writeOnly, readWrite, create, append, direct] = [0, 1, 2, 0o100, 0o2000, 0o40000];

/** Descriptors are the flags that they were opened with. Duplicates are negative. */
function makeTable(passed: number[]) {
  const closed: number[] = [];
  const system = {
    duplicate: (fd: number) => -fd,
    flagsOf: (fd: number) => fd,
    close: (fd: number) => closed.push(fd),
  };
  const table = new DescriptorTable({ schema: schemaOf('10.0'), system, isRunning: () => true });
  const monitor = {};
  const say = (command: string, given: Record<string, number | string>) =>
    table.handlers[command]?.(given, { monitor, takeDescriptor: () => passed.shift() });
  return { table, say, closed };
}

it('opens the first descriptor of a set that has the same mode, without O_DIRECT', () => {
  const { table, say } = makeTable([readWrite, writeOnly | direct, writeOnly | append, writeOnly]);
  for (let i = 0; i < 4; i++) say('add-fd', { 'fdset-id': 1 });
  expect(table.open('/dev/fdset/1', writeOnly | create, '')).toBe(-(writeOnly | append));
  expect(() => table.open('/dev/fdset/1', readOnly, '')).toThrow('matching flags=0x0');
  expect(table.open('/dev/fdset', writeOnly, '')).toBeUndefined();
});

it('keeps a number that no double holds', () => {
  const { say } = makeTable([]);
  const far = 9223372036854775807n as unknown as number;
  expect(() => say('remove-fd', { 'fdset-id': far })).toThrow("'fdset-id:9223372036854775807' not found");
});

it('says what is missing where no descriptors are received', () => {
  const table = new DescriptorTable({ schema: schemaOf('9.0'), system: undefined, isRunning: () => true });
  const origin = { monitor: {}, takeDescriptor: () => undefined };
  const missing =
    'No file descriptor supplied via SCM_RIGHTS (to receive any, vmferry needs Linux and the package koffi)';
  expect(() => table.handlers.getfd?.({ fdname: 'a' }, origin)).toThrow(missing);
  expect(() => table.handlers['add-fd']?.({}, origin)).toThrow(missing);
  expect(table.handlers['query-fdsets']?.({}, origin)).toEqual([]);
});
