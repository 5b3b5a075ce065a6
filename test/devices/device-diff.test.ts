/** Compares two states of one device. */
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { diffDevice, type FieldChange } from '../../src/devices/device-diff.ts';
import { type DeviceState, decodeDevice, type StateStruct } from '../../src/devices/device-state.ts';
import { findValue } from '../../src/devices/find-value.ts';
import { describeChange } from '../../src/words/diff-words.ts';
import { hex, join, subsection, u64 } from '../oracle/build.ts';
import { describedDevice, type PlainStruct } from './described-device.ts';
import { decodeBy, field, sectionOf } from './devices.ts';
import { virtioBody } from './virtio.ts';

const changesOf = (old: DeviceState, now: DeviceState, most = 100): FieldChange[] => diffDevice(old, now, most).changes;
const between = (old: PlainStruct, now: PlainStruct) => changesOf(describedDevice('d', old), describedDevice('d', now));

describe('two states of a device', () => {
  it('have no difference if their bytes are the same', () => {
    const state = { a: 1, deep: { b: [1, 2], c: 3n }, list: [{ x: 1 }, { x: 2 }] };
    const difference = diffDevice(describedDevice('d', state), describedDevice('d', state), 100);
    expect(difference).toEqual({ name: 'd', instanceId: 0, changes: [], changeCount: 0, problem: undefined });
  });

  it('differ in numbers, by the paths of structs, arrays and elements', () => {
    const old = { same: 5, a: 1, deep: { b: [1, 2], c: 3n }, list: [{ x: 1 }, { x: 2 }] };
    const now = { same: 5, a: 2, deep: { b: [1, 9], c: 2n ** 60n }, list: [{ x: 1 }, { x: 7 }] };
    expect(between(old, now)).toEqual([
      { path: 'a', kind: 'value', type: 'uint32', old: 1, new: 2 },
      { path: 'deep.b[1]', kind: 'value', type: 'uint32', old: 2, new: 9 },
      { path: 'deep.c', kind: 'value', type: 'uint64', old: 3, new: 2n ** 60n },
      { path: 'list[1].x', kind: 'value', type: 'uint32', old: 2, new: 7 },
    ]);
  });

  it('differ in buffers: the first byte, how many, and an excerpt of both', () => {
    const [old, now] = [new Uint8Array(100), new Uint8Array(100)];
    now[40] = 1;
    now[41] = 2;
    now[99] = 3;
    expect(between({ rom: old }, { rom: now })).toEqual([
      {
        ...{ path: 'rom', kind: 'bytes', type: 'buffer', first: 40, count: 3, oldLength: 100, newLength: 100 },
        ...{ old: new Uint8Array(16), new: Uint8Array.of(1, 2, ...new Array(14).fill(0)) },
      },
    ]);
    expect(between({ rom: Uint8Array.of(1, 2, 3) }, { rom: Uint8Array.of(1) })).toMatchObject([
      {
        kind: 'bytes',
        first: 1,
        count: 2,
        oldLength: 3,
        newLength: 1,
        old: Uint8Array.of(2, 3),
        new: new Uint8Array(),
      },
    ]);
  });

  it('show what only one has (fields and elements), and elements of another kind', () => {
    expect(between({ a: 1, gone: 2, n: [1, 2, 3], k: 5 }, { a: 1, n: [1, 2], k: { x: 6 }, more: 1 })).toEqual([
      { path: 'gone', kind: 'removed' },
      { path: 'n[2]', kind: 'removed' },
      { path: 'k', kind: 'type', old: 'uint32', new: 'struct' },
      { path: 'more', kind: 'added' },
    ]);
  });

  it('differ in subsections, with the paths to them', () => {
    const withSubsections = (...parts: [name: string, value: number][]) =>
      decodeBy(
        `"fields": [${field('x', 'uint8', 1)}], "subsections": [${parts.map(
          ([name]) => `{"vmsd_name": "dev/${name}", "version": 1, "fields": [${field('y', 'uint8', 1)}]}`,
        )}]`,
        join(hex('01'), ...parts.map(([name, value]) => subsection(`dev/${name}`, [value]))),
      );
    expect(changesOf(withSubsections(['a', 1], ['b', 2]), withSubsections(['b', 3], ['c', 4]))).toEqual([
      { path: '/a', kind: 'removed' },
      { path: '/b.y', kind: 'value', type: 'uint8', old: 2, new: 3 },
      { path: '/c', kind: 'added' },
    ]);
  });

  it('treat fields of one name as the elements of one array, even if the index of a single one is missing', () => {
    const parts = (...values: number[]) => {
      const fields = values.map((_, index) => field('i', 'uint8', 1, values.length > 1 ? { index } : {}));
      return decodeBy(`"fields": [${fields}]`, Uint8Array.from(values));
    };
    expect(changesOf(parts(1, 2, 3), parts(1, 5, 3))).toEqual([
      { path: 'i[1]', kind: 'value', type: 'uint8', old: 2, new: 5 },
    ]);
    expect(changesOf(parts(1), parts(2, 3))).toEqual([
      { path: 'i[0]', kind: 'value', type: 'uint8', old: 1, new: 2 },
      { path: 'i[1]', kind: 'added' },
    ]);
  });

  it('are compared as bytes without a description, or if the same fields come in another order', () => {
    const bare = (...bytes: number[]) => decodeDevice(sectionOf(Uint8Array.from(bytes)), undefined);
    const difference = diffDevice(bare(1, 2, 3), bare(1, 9, 3), 100);
    expect(difference.problem).toMatch(/no description/);
    expect(difference.changes).toMatchObject([{ path: '', kind: 'bytes', first: 1, count: 1 }]);
    expect(between({ a: 1, b: 2 }, { b: 2, a: 1 })).toMatchObject([{ path: '', kind: 'bytes', first: 3, count: 2 }]);
  });

  it('differ if their versions differ, even with the same bytes', () => {
    const old = describedDevice('d', { a: 1 });
    expect(changesOf(old, { ...old, versionId: 2 })).toEqual([{ path: '', kind: 'version', old: 1, new: 2 }]);
  });

  it('keep the requested number of differences, and count all', () => {
    const numbers = Array.from({ length: 50 }, (_, i) => i);
    const difference = diffDevice(
      describedDevice('d', { numbers }),
      describedDevice('d', { numbers: numbers.map((n) => n + 1) }),
      7,
    );
    expect([difference.changes.length, difference.changeCount]).toEqual([7, 50]);
  });

  it('give paths by which findValue finds both values, for any numbers', () => {
    const number = fc.nat(3);
    const shape = fc.record({
      a: number,
      list: fc.array(fc.record({ x: number, y: fc.array(number, { minLength: 3, maxLength: 3 }) }), {
        minLength: 2,
        maxLength: 2,
      }),
      deep: fc.record({ 'with.dots[0]': number, b: number }),
    });
    fc.assert(
      fc.property(shape, shape, (before, after) => {
        const [old, now] = [describedDevice('d', before), describedDevice('d', after)];
        const leaves = (value: unknown): number[] =>
          typeof value === 'number' ? [value] : Object.values(value as object).flatMap(leaves);
        const differ = leaves(before).filter((value, i) => value !== leaves(after)[i]).length;
        const changes = changesOf(old, now);
        expect(changes.length).toBe(differ);
        for (const change of changes) {
          expect(findValue(old.state as StateStruct, change.path)).toBe((change as { old: number }).old);
          expect(findValue(now.state as StateStruct, change.path)).toBe((change as { new: number }).new);
        }
      }),
      { numRuns: 100 },
    );
  });
});

describe('registers that a CPU lists by number', () => {
  const cpu = (registers: Record<string, bigint>, length = Object.keys(registers).length) =>
    describedDevice('cpu', {
      cpreg_vmstate_array_len: length,
      cpreg_vmstate_indexes: Object.keys(registers).map(BigInt),
      cpreg_vmstate_values: Object.values(registers),
      after: 7,
    });
  const changes = (old: Record<string, bigint>, now: Record<string, bigint>) => changesOf(cpu(old), cpu(now));

  it('are compared by their numbers: one more is one difference', () => {
    const [old, now] = [
      { '0x10': 1n, '0x30': 3n, '0x40': 4n },
      { '0x10': 1n, '0x20': 2n, '0x30': 3n, '0x40': 4n },
    ];
    const path = 'cpreg_vmstate_values[1]';
    expect(changes(old, now)).toEqual([{ path, register: 0x20n, kind: 'added' }]);
    expect(changes(now, old)).toEqual([{ path, register: 0x20n, kind: 'removed' }]);
  });

  it('differ in values, wherever they are in the two lists', () => {
    const big = 0x6030_0000_0013_c510n;
    expect(changes({ '0x20': 2n, [String(big)]: 3n }, { '0x10': 9n, [String(big)]: 2n ** 63n, '0x20': 2n })).toEqual([
      { path: 'cpreg_vmstate_values[0]', register: 0x10n, kind: 'added' },
      { path: 'cpreg_vmstate_values[1]', register: big, kind: 'value', type: 'uint64', old: 3, new: 2n ** 63n },
    ]);
  });

  it('differ if a number is another and its value is the same', () => {
    expect(changes({ '0x10': 5n, '0x20': 6n }, { '0x10': 5n, '0x21': 6n })).toEqual([
      { path: 'cpreg_vmstate_values[1]', register: 0x20n, kind: 'removed' },
      { path: 'cpreg_vmstate_values[1]', register: 0x21n, kind: 'added' },
    ]);
  });

  it('are compared by position if a number occurs twice', () => {
    const twice = (values: bigint[]) =>
      describedDevice('cpu', { cpreg_vmstate_indexes: [1n, 1n], cpreg_vmstate_values: values });
    expect(changesOf(twice([5n, 6n]), twice([5n, 7n]))).toEqual([
      { path: 'cpreg_vmstate_values[1]', kind: 'value', type: 'uint64', old: 6, new: 7 },
    ]);
  });

  it('are named by their numbers in words', () => {
    const words = changes({ '0x10': 1n }, { '0x10': 2n, '0x6030': 3n }).map((change) => describeChange(change));
    expect(words).toEqual([
      'cpreg_vmstate_values[0] (register 0x10)  1 → 2',
      'cpreg_vmstate_values[1] (register 0x6030)  only in B',
    ]);
  });
});

describe('the features of a virtio device', () => {
  const device = (features: bigint) => {
    const data = virtioBody({
      features,
      own: new Uint8Array(4),
      tail: subsection('virtio/64bit_features', u64(features)),
    });
    const virtio = {
      name: 'virtio',
      type: 'virtio',
      size: data.length,
      arrayLength: undefined,
      index: undefined,
      nested: [],
    };
    const description = {
      name: 'dev',
      instanceId: 0,
      vmsdName: 'virtio-9p',
      version: 1,
      fields: [virtio],
      subsections: [],
    };
    return decodeDevice(sectionOf(data), description);
  };

  it('have names where they differ', () => {
    const changes = changesOf(device(0x1_0000_0001n), device(0x1_2000_0000n));
    const low = { removed: ['MOUNT_TAG'], added: ['RING_EVENT_IDX'] };
    expect(changes).toMatchObject([
      { path: 'virtio.guest_features', kind: 'value', features: low },
      { path: 'virtio/64bit_features.guest_features', kind: 'value', features: low },
    ]);
    expect(describeChange(changes[0] as FieldChange)).toMatch(/ → .*: -MOUNT_TAG \+RING_EVENT_IDX$/);
  });

  it('have no names in other devices', () => {
    const bits = (guest_features: number) => describedDevice('d', { inner: { guest_features } });
    expect(changesOf(bits(1), bits(2))).toEqual([
      { path: 'inner.guest_features', kind: 'value', type: 'uint32', old: 1, new: 2 },
    ]);
  });
});
