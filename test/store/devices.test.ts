import { describe, expect, it } from 'vitest';
import { readRunState } from '../../src/devices/device-facts.ts';
import { deviceToJson } from '../../src/devices/device-json.ts';
import { type DeviceState, isStruct, type StateStruct } from '../../src/devices/device-state.ts';
import { findValue } from '../../src/devices/find-value.ts';
import { open } from '../../src/index.ts';
import { decodeDevices, readDevices } from '../../src/store/devices.ts';
import { settle } from '../../src/store/settle.ts';
import { verify } from '../../src/tasks/inspect/verify.ts';
import { sectionOf } from '../devices/devices.ts';
import { loadFixtures } from '../fixture-files.ts';
import { EOF, full, hex, join, none, ramEnd, ramStart, vmdescription } from '../oracle/build.ts';

const read = async (bytes: Uint8Array) => {
  const file = await open(bytes);
  const result = await readDevices(file);
  await file.close();
  return result;
};

const fixtures = loadFixtures().filter(({ offset }) => offset === 0);

/** Requires that the fields and subsections of a state follow each other without a gap. Returns their bytes. */
function expectTiled({ fields, subsections, offset, length }: StateStruct, start = offset): void {
  let at = start;
  for (const part of [...fields, ...subsections]) {
    expect(part.offset).toBe(at);
    at += part.length;
  }
  expect(at).toBe(offset + length);
  for (const { value } of fields) if (isStruct(value)) expectTiled(value);
}

describe('the devices of a file', () => {
  it.each(fixtures)('$name are read to their last bytes', async ({ bytes, name }) => {
    const { devices, description, error } = await read(bytes);
    expect(error).toBeUndefined();
    expect(devices.length).toBeGreaterThan(1);
    const isDescribed = description !== undefined;
    expect(isDescribed).toBe(!/no-vmdesc|postcopy|hugepages/.test(name));
    for (const device of devices) {
      const { problem, state, undecodedBytes } = device;
      if (isDescribed) expect([device.name, problem, undecodedBytes]).toEqual([device.name, undefined, 0]);
      else if (device.name !== 'timer' && device.name !== 'globalstate') expect(state).toBeUndefined();
      if (state !== undefined) expectTiled(state);
    }
    expect(readRunState(devices)).toMatch(/^(running|paused|prelaunch|postmigrate)$/);
  });

  it('are those that settle keeps, decoded', async () => {
    const { bytes } = fixtures.find(({ name }) => name === 'pc-plain-10.0') ?? {};
    const file = await open(bytes as Uint8Array);
    const settled = await settle(file, { take() {} }, { devices: true });
    const ofFlow = await readDevices(file);
    const names = (devices: readonly DeviceState[]) => devices.map(({ name, instanceId }) => [name, instanceId]);
    expect(names(decodeDevices(settled))).toEqual(names(ofFlow.devices));
    const cpu = decodeDevices(settled).find(({ name }) => name === 'cpu')?.state as StateStruct;
    expect(findValue(cpu, 'env.cr[0]')).toBe(
      findValue(ofFlow.devices.find(({ name }) => name === 'cpu')?.state as StateStruct, 'env.cr[0]'),
    );
    await file.close();
  });
});

const field = (name: string, size: number, more: object = {}) => ({ name, type: 'buffer', size, ...more });
const device = (name: string, ...fields: object[]) => ({ name, instance_id: 0, vmsd_name: name, version: 1, fields });
const stream = (description: object, ...sections: Uint8Array[]) =>
  join(none, ramStart, ramEnd, ...sections, EOF, vmdescription(description));

describe('devices of the same name and instance', () => {
  it('are matched with descriptions in order', async () => {
    const devices = [device('x', field('a', 1)), device('x', field('b', 2))];
    const result = await read(stream({ devices }, full(2, 'x', [1]), full(3, 'x', [2, 3])));
    expect(result.devices.map(({ state }) => state?.fields.map(({ name }) => name))).toEqual([['a'], ['b']]);
  });
});

describe('a file that breaks off in its description', () => {
  it('has all devices, without descriptions', async () => {
    const bytes = stream({ devices: [device('x', field('a', 1))] }, full(2, 'x', [1]), full(3, 'timer', [2, 3]));
    const cut = bytes.subarray(0, bytes.length - 40);
    const { devices, error } = await read(cut);
    expect(error).toBeUndefined();
    expect(devices.map(({ name, problem }) => [name, problem])).toEqual([
      ['x', 'there is no description'],
      ['timer', 'there is no description'],
    ]);
  });
});

describe('a description that only fits in size', () => {
  it('gives a warning in verify, and leaves bytes', async () => {
    const list = field('l', 3, { type: 'qtailq', vmsd_name: 'e', version: 1, fields: [field('a', 1)] });
    const bytes = stream({ devices: [device('x', list)] }, full(2, 'x', [1, 7, 9]));
    expect((await read(bytes)).devices[0]).toMatchObject({ state: undefined, undecodedBytes: 3 });
    const { ok, findings } = await verify(await open(bytes));
    expect(ok).toBe(true);
    expect(findings.filter(({ code }) => code !== 'pages-absent')).toMatchObject([
      { code: 'description-mismatch', message: expect.stringContaining('expected 1 or 0'), place: { section: 'x' } },
    ]);
  });
});

describe('a device as JSON', () => {
  const jsonOf = (state: DeviceState) => JSON.parse([...deviceToJson(state, { more: '[1]' })].join(''));

  it('has every value with its type and its place in the file', async () => {
    const fields = [
      { name: 'n', type: 'uint64', size: 8 },
      { name: 'b', type: 'bool', size: 1, index: 3 },
      { name: 's', type: 'struct', size: 2, struct: { vmsd_name: 's', version: 1, fields: [field('x', 2)] } },
      { name: 'a', type: 'uint8', size: 1, array_len: 2 },
      { name: 'p', type: 'nullptr', size: 1, array_len: 2 },
      { name: 't', type: 'struct', size: 1, array_len: 2, struct: { vmsd_name: 't', fields: [field('y', 1)] } },
    ];
    const body = hex('ffffffffffffffff 01 aabb 0102 3030 0304');
    const [found] = (await read(stream({ devices: [device('x', ...fields)] }, full(2, 'x', body)))).devices;
    const json = jsonOf(found as DeviceState);
    const at = (found as DeviceState).offset;
    expect(json).toMatchObject({ name: 'x', instanceId: 0, length: body.length, problem: null, more: [1] });
    expect(json.state.fields.map(({ name, value }: { name: string; value: unknown }) => [name, value])).toMatchObject([
      ['n', '18446744073709551615'],
      ['b', true],
      ['s', { vmsdName: 's', offset: at + 9, fields: [{ name: 'x', offset: at + 9, length: 2, value: 'aabb' }] }],
      ['a', [1, 2]],
      ['p', [null, null]],
      ['t', [{ fields: [{ value: '03' }] }, { fields: [{ value: '04' }] }]],
    ]);
    expect(json.state.fields[1].index).toBe(3);
  });

  it('has bytes if there is no state', () => {
    const data = new Uint8Array(70_000).map((_, i) => i);
    const { offset, name, instanceId, versionId } = sectionOf(data);
    const device = { name, instanceId, versionId, offset, length: data.length, data };
    const json = jsonOf({ ...device, state: undefined, problem: 'why', undecodedBytes: data.length });
    expect(json).toMatchObject({ state: null, problem: 'why', undecodedBytes: 70_000 });
    expect(json.data).toBe(Buffer.from(data).toString('hex'));
  });
});
