import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Check, check, checkOf, readTarget } from '../../../src/tasks/check/check.ts';
import { parseVmstateDump } from '../../../src/tasks/check/vmstate-dump.ts';
import { MigrationError } from '../../../src/vm/migration-error.ts';
import { virtioBody } from '../../devices/virtio.ts';
import { command, compressedPage, EOS, FLUSH, filled, join, part, start, u32, u64 } from '../../oracle/build.ts';
import { kindsOfSource, opened } from '../../support/opened.ts';
import {
  byte,
  bytes,
  type Device,
  type DumpState,
  dumpText,
  raw,
  type Saved,
  type State,
  savedFile,
  structs,
  word,
  words,
} from '../../support/saved-files.ts';

const dumpOf = (states: DumpState[], machine?: string) => ({
  kind: 'vmstate-dump' as const,
  name: 'dump.json',
  dump: parseVmstateDump(dumpText(states, machine), { source: 'dump.json', coordinate: 'file' }),
});
const targetOf = async (saved: Saved) => readTarget(await opened(savedFile(saved)), 'target');

const againstDump = async (saved: Saved | Uint8Array, states: DumpState[] = [], machine?: string) =>
  check(await opened(saved instanceof Uint8Array ? saved : savedFile(saved)), dumpOf(states, machine));
const againstFile = async (saved: Saved | Uint8Array, target: Saved) =>
  check(await opened(saved instanceof Uint8Array ? saved : savedFile(saved)), await targetOf(target));

/** The reasons against loading and the conditions for it, without notes. */
const reasons = ({ reasons }: Check) =>
  reasons.filter(({ effect }) => effect !== 'note').map(({ effect, rule }) => `${effect} ${rule}`);
const firstOf = ({ reasons }: Check) => reasons[0] as NonNullable<Check['reasons'][0]>;

const nic: State = { name: 'nic', version: 2, fields: [word('mac', 7), word('status')] };
const nicDump: DumpState = {
  name: 'nic',
  version: 2,
  minimum: 1,
  fields: [
    { name: 'mac', size: 4 },
    { name: 'status', size: 4, since: 2 },
  ],
};
const device = (state: State, more: Partial<Device> = {}): Device => ({
  idstr: `0000:00:03.0/${state.name}`,
  state,
  ...more,
});
const withDevice = (state: State, more: Partial<Device> = {}): Saved => ({ devices: [device(state, more)] });

describe('a file that the target can load', () => {
  it.each(kindsOfSource)('loads if every device is known, from a %s', async (kind) => {
    const file = await opened(savedFile(withDevice(nic)), kind);
    const result = await check(file, dumpOf([nicDump]));
    expect(result).toMatchObject({
      source: 'memory',
      machine: 'pc-i440fx-10.0',
      against: { name: 'dump.json', kind: 'vmstate-dump', machine: 'pc-i440fx-10.0' },
      verdict: 'loads',
      reasons: [],
      checked: { blocks: 0, sections: 1 },
    });
  });

  it('loads on the target that saved it', async () => {
    const result = await againstFile(withDevice(nic), withDevice(nic));
    expect(result).toMatchObject({
      verdict: 'loads',
      reasons: [],
      against: { kind: 'file', name: 'target' },
      checked: { blocks: 1, sections: 2 },
    });
  });

  it('lists what neither a dump nor a file shows', async () => {
    const byDump = await againstDump(withDevice(nic), [nicDump]);
    expect(byDump.notJudged.join('\n')).toMatch(/which devices.*\n.*properties.*\n.*elements.*\n.*values/);
    const byFile = await againstFile(withDevice(nic), withDevice(nic));
    expect(byFile.notJudged.join('\n')).toMatch(/older versions/);
  });
});

describe('the machine type', () => {
  it('must be the same, and the advice names it', async () => {
    for (const result of [
      await againstDump({ machine: 'pc-q35-9.2' }),
      await againstFile({ machine: 'pc-q35-9.2' }, {}),
    ]) {
      expect(result.verdict).toBe('refused');
      expect(firstOf(result)).toMatchObject({ rule: 'machine', place: { offset: 8 } });
      expect(firstOf(result).advice).toContain('-M pc-q35-9.2');
    }
  });

  it("may be a prefix of the target's, because QEMU compares only that", async () => {
    for (const machine of ['', 'pc', 'pc-i440fx-10.']) {
      expect((await againstDump({ machine })).verdict).toBe('loads');
    }
    expect((await againstDump({ machine: 'pc-i440fx-10.01' })).verdict).toBe('refused');
  });

  it('may be missing only if the target expects none', async () => {
    const old = { machine: undefined, switchover: false };
    expect(reasons(await againstFile(old, { switchover: false }))).toEqual(['refused configuration']);
    expect(reasons(await againstFile({ switchover: false }, old))).toEqual(['refused configuration']);
    expect((await againstFile(old, old)).verdict).toBe('loads');
    expect((await againstDump(old, [], 'pc-i440fx-2.3')).verdict).toBe('loads');
    expect(reasons(await againstDump(old))).toEqual(['doubt configuration']);
  });
});

describe('the configuration', () => {
  it('names capabilities that the target needs', async () => {
    const shared = { capabilities: ['x-ignore-shared'], blocks: [] };
    expect(reasons(await againstDump(shared))).toEqual(['needed capability']);
    expect(reasons(await againstFile({}, shared))).toContain('needed capability');
    expect((await againstFile(shared, shared)).reasons).toEqual([]);
    expect(reasons(await againstDump({ capabilities: ['x-new'] }))).toEqual(['doubt capability']);
  });

  it('refuses mapped-ram if the target is known to be too old', async () => {
    const mapped = { machine: 'none', capabilities: ['mapped-ram'], blocks: [], switchover: false } satisfies Saved;
    const old = { machine: 'none', switchover: false };
    expect(reasons(await againstDump(mapped, [], 'none'))).toContain('needed capability');
    expect(reasons(await againstFile({ ...mapped, switchover: true }, old))).toContain('refused command');
  });

  it('compares UUIDs if both files have one, otherwise states what the target may have', async () => {
    const uuid = '0123456789abcdef0011223344556677';
    const needed = await againstDump({ uuid });
    expect(reasons(needed)).toEqual(['needed configuration']);
    expect(firstOf(needed).advice).toContain('-uuid 01234567-89ab-cdef-0011-223344556677');
    expect((await againstFile({ uuid }, { uuid })).reasons).toEqual([]);
    expect(reasons(await againstFile({ uuid }, { uuid: '0'.repeat(32) }))).toEqual(['refused configuration']);
    expect((await againstFile({}, { uuid })).reasons).toEqual([]);
  });
});

describe('RAM blocks', () => {
  it('are refused if the target has none of that name', async () => {
    const blocks: Saved['blocks'] = [
      ['pc.ram', 16],
      ['0000:00:02.0/vga.vram', 4],
    ];
    const result = await againstFile({ blocks }, {});
    expect(reasons(result)).toEqual(['refused ram-block']);
    expect(firstOf(result)).toMatchObject({ place: { section: 'ram', block: '0000:00:02.0/vga.vram' } });
    expect(firstOf(result).advice).toContain('VGA');
    expect((await againstFile({}, { blocks })).verdict).toBe('loads');
  });

  it('are refused with another size, except for resizable tables', async () => {
    const sized = (idstr: string, pages: number): Saved => ({ blocks: [[idstr, pages]] });
    const result = await againstFile(sized('pc.ram', 16), sized('pc.ram', 32));
    expect(firstOf(result)).toMatchObject({ effect: 'refused', rule: 'ram-block' });
    expect(firstOf(result).advice).toContain('-m');
    const tables = '/rom@etc/acpi/tables';
    expect((await againstFile(sized(tables, 32), sized(tables, 64))).verdict).toBe('loads');
    // They grow up to a limit that only the target knows.
    expect(reasons(await againstFile(sized(tables, 64), sized(tables, 32)))).toEqual(['doubt ram-block']);
  });

  it('are not judged by a dump, which is reported', async () => {
    const result = await againstDump({ blocks: [['other', 99]] });
    expect(result.verdict).toBe('loads');
    expect(result.notJudged[0]).toMatch(/RAM blocks/);
  });
});

describe('footers', () => {
  it("must match the target's expectation", async () => {
    const none = { footers: false };
    expect(reasons(await againstFile(none, {}))).toContain('refused footers');
    expect(reasons(await againstFile({}, none))).toContain('refused footers');
    expect((await againstFile(none, none)).verdict).toBe('loads');
    expect(reasons(await againstDump(none))).toContain('doubt footers');
    const old = { ...none, machine: 'pc-i440fx-2.1', switchover: false };
    expect((await againstDump(old, [], 'pc-i440fx-2.1')).verdict).toBe('loads');
  });
});

describe('commands', () => {
  it('need a QEMU that knows SWITCHOVER_START, which a new enough machine type shows', async () => {
    const none = { machine: 'none' };
    expect(reasons(await againstDump(none, [], 'none'))).toEqual(['needed command']);
    expect(reasons(await againstFile(none, { ...none, switchover: false }))).toEqual(['refused command']);
    expect((await againstFile(none, none)).reasons).toEqual([]);
  });

  it('of postcopy and COLO need their capabilities, and a PING needs a return path', async () => {
    const advise = command(3, u64(4096), u64(4096));
    expect(reasons(await againstDump({ before: [advise] }))).toEqual(['needed command']);
    expect((await againstDump({ before: [command(3)] })).verdict).toBe('loads');
    expect(reasons(await againstDump({ before: [command(8)] }))).toEqual(['needed command']);
    expect(reasons(await againstDump({ before: [command(2, u32(1))] }))).toEqual(['refused command']);
    expect((await againstDump({ before: [command(1), command(2, u32(1))] })).verdict).toBe('loads');
  });
});

describe('how pages are sent', () => {
  it('may require the capability compress, which no newer target has', async () => {
    const between = [part(1, compressedPage(0, filled(7, 20), 'pc.ram'), EOS)];
    const old = { between, machine: 'pc-i440fx-7.2', switchover: false };
    expect(reasons(await againstDump(old, [], 'pc-i440fx-7.2'))).toEqual(['needed pages']);
    expect(reasons(await againstDump({ between }))).toEqual(['refused pages']);
  });

  it('may require multifd', async () => {
    expect(reasons(await againstDump({ between: [part(1, FLUSH, EOS)] }))).toEqual(['needed pages']);
  });

  it('is reported for disks in the stream', async () => {
    const between = [start(9, 'block', 1, u64(2))];
    expect(reasons(await againstDump({ between }))).toContain('refused section');
    const old = { between, machine: 'pc-i440fx-7.2', switchover: false };
    expect(reasons(await againstDump(old, [], 'pc-i440fx-7.2'))).toContain('needed section');
  });
});

describe('sections', () => {
  it('of a device type that is missing in the dump are refused', async () => {
    const result = await againstDump(withDevice({ ...nic, name: 'igb' }), [nicDump]);
    expect(firstOf(result)).toMatchObject({
      effect: 'refused',
      rule: 'section',
      place: { section: '0000:00:03.0/igb' },
    });
  });

  it('that a dump need not list are a condition, or known', async () => {
    for (const name of ['strange', '0000:00:02.0/strange']) {
      const strange = await againstDump({ devices: [{ idstr: name, state: { ...nic, name: 'strange' } }] }, []);
      expect(strange).toMatchObject({ verdict: 'loads', reasons: [] });
      expect(strange.conditions).toContain('it has the state strange');
    }
    const eeprom = await againstDump(withDevice({ ...nic, name: 'eeprom' }), []);
    expect(eeprom).toMatchObject({ verdict: 'loads', reasons: [], conditions: ['it has the same RAM and devices'] });
    const timer = await againstDump({ devices: [{ state: { ...nic, name: 'timer' } }] }, []);
    expect(timer.verdict).toBe('loads');
    expect(timer.notJudged).toContain('section timer: a dump lists the states of device types, and not all others');
  });

  it('are refused if newer than the target knows, or older than it reads', async () => {
    for (const version of [0, 3]) {
      const result = await againstDump(withDevice(nic, { version }), [nicDump]);
      expect(reasons(result)).toEqual(['refused section-version']);
    }
    expect((await againstDump(withDevice({ ...nic, version: 1, fields: [word('mac')] }), [nicDump])).verdict).toBe(
      'loads',
    );
  });

  it('are judged by the last part of their name if nothing describes them, which is reported', async () => {
    const saved = { ...withDevice(nic), described: false };
    const fine = await againstDump(saved, [nicDump]);
    expect(fine.verdict).toBe('loads');
    expect(fine.notJudged).toContain('fields of 0000:00:03.0/nic: the file does not describe them');
    const newer = await againstDump({ ...withDevice(nic, { version: 9 }), described: false }, [nicDump]);
    expect(firstOf(newer).message).toMatch(/guessed from its name/);
    expect(reasons(await againstDump(saved, []))).toEqual([]);
  });

  it('that the target did not save are refused, with advice about devices, addresses or CPUs', async () => {
    const missing = await againstFile(withDevice(nic), {});
    expect(reasons(missing)).toEqual(['refused section']);
    expect(firstOf(missing).advice).toContain('-device');
    const moved = await againstFile(withDevice(nic), withDevice(nic, { idstr: '0000:00:07.0/nic' }));
    expect(firstOf(moved).message).toContain('0000:00:07.0/nic');
    expect(firstOf(moved).advice).toContain('address');
    const cpu = { ...nic, name: 'cpu' };
    const cpus = { devices: [{ state: cpu }, { state: cpu, instance: 1 }] };
    const fewer = await againstFile(cpus, { devices: [{ state: cpu }] });
    expect(firstOf(fewer).message).toContain('none with instance 1');
    expect(firstOf(fewer).advice).toContain('-smp');
  });

  it('that only the target has are harmless', async () => {
    const result = await againstFile({}, withDevice(nic));
    expect(result).toMatchObject({ verdict: 'loads', reasons: [{ effect: 'note', rule: 'section' }] });
  });

  it('are found under their name from before the place was part of it: a doubt', async () => {
    expect(reasons(await againstFile(withDevice(nic, { idstr: 'nic' }), withDevice(nic)))).toEqual(['doubt section']);
  });

  it('that a target has although its file lacks them do not matter', async () => {
    const devices = [{ state: { ...nic, name: 'globalstate' } }];
    expect((await againstFile({ devices }, {})).verdict).toBe('loads');
  });

  it('are refused if newer than the target saved; whether it reads older ones is a doubt', async () => {
    const v = (version: number) => withDevice({ ...nic, version });
    expect(reasons(await againstFile(v(3), v(2)))).toEqual(['refused section-version']);
    expect(reasons(await againstFile(v(1), v(2)))).toEqual(['doubt section-version']);
  });
});

describe('fields compared with a dump', () => {
  const against = (fields: State['fields'], dumped: DumpState['fields'], version = 2) =>
    againstDump(withDevice({ ...nic, version, fields }), [{ ...nicDump, fields: dumped ?? [] }]);

  it('are refused if the target reads more, at the byte where it would go wrong', async () => {
    const dumped = [...(nicDump.fields ?? []), { name: 'speed', size: 4 }];
    const result = await againstDump(withDevice(nic), [{ ...nicDump, fields: dumped }]);
    expect(firstOf(result)).toMatchObject({ effect: 'refused', rule: 'field', field: 'speed', state: 'nic' });
    const body = savedFile(withDevice(nic));
    const bodyAt = Buffer.from(body).indexOf('0000:00:03.0/nic') + '0000:00:03.0/nic'.length + 8;
    expect(firstOf(result).place?.offset).toBe(bodyAt + 8);
  });

  it('are refused if the target does not know one', async () => {
    const result = await against([word('mac'), word('speed'), word('status')], nicDump.fields);
    expect(firstOf(result)).toMatchObject({ effect: 'refused', field: 'speed' });
    expect(firstOf(result).message).toContain('does not know speed (4 bytes)');
  });

  it('are refused with another size', async () => {
    expect(reasons(await against([byte('mac'), word('status')], nicDump.fields))).toEqual(['refused field']);
  });

  it('of a later version are not read from an older one', async () => {
    expect((await against([word('mac')], nicDump.fields, 1)).verdict).toBe('loads');
    expect((await against([word('mac')], nicDump.fields, 2)).verdict).toBe('refused');
  });

  it('that were renamed, merged or left unused are harmless', async () => {
    const renamed = await against([word('mac'), word('link')], nicDump.fields);
    expect(renamed).toMatchObject({ verdict: 'loads', reasons: [{ effect: 'note', rule: 'field' }] });
    const merged = await against([bytes('unused', 8, 'unused_buffer')], nicDump.fields);
    expect(merged.verdict).toBe('loads');
    const array = await against([words('queues', [1, 2, 3])], [{ name: 'rings', size: 4 }]);
    expect(array.verdict).toBe('loads');
  });

  it('with a condition may be present or absent', async () => {
    const dumped = [
      { name: 'mac', size: 4 },
      { name: 'status', size: 4, conditional: true },
    ];
    expect((await against([word('mac'), word('status')], dumped)).verdict).toBe('loads');
    expect((await against([word('mac')], dumped)).verdict).toBe('loads');
  });

  it('that are read as others if conditions hold are a doubt', async () => {
    const dumped = [
      { name: 'mac', size: 4 },
      { name: 'link', size: 4, conditional: true },
    ];
    expect(reasons(await against([word('mac'), word('status')], dumped))).toEqual(['doubt field']);
  });

  it('that could be mistaken for each other are a doubt', async () => {
    const result = await against(
      [word('mac'), byte('lun'), byte('drq')],
      [
        { name: 'mac', size: 4 },
        { name: 'command', size: 1, conditional: true },
        { name: 'lun', size: 1, conditional: true },
      ],
    );
    expect(result.verdict).toBe('doubtful');
    expect(firstOf(result).message).toContain('may still match');
  });

  it('that are an array without elements do not matter if a number before it is 0, otherwise are a doubt', async () => {
    const log = { name: 'log', size: 40, nested: { name: 'entry', version: 1 } };
    const dumped = [{ name: 'count', size: 4 }, log];
    expect((await against([word('count', 0)], dumped)).verdict).toBe('loads');
    expect((await against([word('count', 3)], dumped)).verdict).toBe('doubtful');
  });

  it('with the same name are distinguished by the number after it', async () => {
    const dumped = [
      { name: 'offset', size: 4, conditional: true },
      { name: 'offset', size: 4, since: 2 },
    ];
    expect((await against([word('offset[1]')], dumped)).verdict).toBe('loads');
    expect(
      (
        await against(
          [word('ports[0]'), word('ports[1]')],
          [
            { name: 'ports[0]', size: 4 },
            { name: 'ports[1]', size: 4 },
          ],
        )
      ).verdict,
    ).toBe('loads');
  });

  it("are judged in nested states, by the target's version of them", async () => {
    const inner = (fields: State['fields']): State => ({ name: 'ring', version: 1, fields });
    const dumped = (version: number) => [
      {
        name: 'rings',
        size: 99,
        nested: {
          name: 'ring',
          version,
          fields: [
            { name: 'head', size: 4 },
            { name: 'tail', size: 4, since: 2 },
          ],
        },
      },
    ];
    const rings = structs('rings', inner([word('head')]), inner([word('head')]));
    expect((await against(rings, dumped(1))).verdict).toBe('loads');
    const result = await against(rings, dumped(2));
    expect(firstOf(result)).toMatchObject({ effect: 'refused', field: 'rings.tail', state: 'ring' });
  });

  it('match one of several types that share the name of a state', async () => {
    const other = { ...nicDump, fields: [{ name: 'model', size: 2 }] };
    expect((await againstDump(withDevice(nic), [other, nicDump])).verdict).toBe('loads');
    expect((await againstDump(withDevice(nic), [other])).verdict).toBe('refused');
  });
});

describe('subsections', () => {
  const sub = (version: number, ...fields: State['fields']): State => ({
    ...nic,
    subsections: [{ name: 'nic/tso', version, fields }],
  });
  const dumped = (...subsections: DumpState[]) => [{ ...nicDump, subsections }];
  const tso: DumpState = { name: 'nic/tso', version: 2, minimum: 1, fields: [{ name: 'size', size: 4 }] };

  it('are refused if the target does not know them, at their first byte', async () => {
    const saved = withDevice(sub(1, word('size')));
    const result = await againstDump(saved, dumped());
    expect(firstOf(result)).toMatchObject({ effect: 'refused', rule: 'subsection', state: 'nic/tso' });
    expect(firstOf(result).place?.offset).toBe(Buffer.from(savedFile(saved)).indexOf('nic/tso') - 2);
  });

  it('are refused if too new or too old', async () => {
    for (const version of [0, 3]) {
      const result = await againstDump(withDevice(sub(version, word('size'))), dumped(tso));
      expect(reasons(result)).toEqual(['refused subsection']);
    }
    expect((await againstDump(withDevice(sub(1, word('size'))), dumped(tso))).verdict).toBe('loads');
  });

  it('have their own fields', async () => {
    const result = await againstDump(withDevice(sub(2, word('size'), word('more'))), dumped(tso));
    expect(firstOf(result)).toMatchObject({ rule: 'field', field: 'nic/tso.more', state: 'nic/tso' });
  });

  it('that the file lacks are harmless, and so are those that the target did not need to save', async () => {
    expect((await againstDump(withDevice(nic), dumped(tso))).verdict).toBe('loads');
    const result = await againstFile(withDevice(sub(1, word('size'))), withDevice(nic));
    expect(result.verdict).toBe('loads');
    expect(result.notJudged.join()).toContain('nic/tso');
  });

  it('are compared with those of a file', async () => {
    expect(reasons(await againstFile(withDevice(sub(2, word('a'))), withDevice(sub(1, word('a')))))).toEqual([
      'refused subsection',
    ]);
    expect(reasons(await againstFile(withDevice(sub(1, word('a'), word('b'))), withDevice(sub(1, word('a')))))).toEqual(
      ['refused field'],
    );
    // The target may know a subsection that it no longer saves.
    expect(reasons(await againstFile(withDevice(sub(1, word('a'), word('b'))), withDevice(sub(2, word('a')))))).toEqual(
      ['doubt field'],
    );
  });
});

describe('fields compared with a file', () => {
  const against = (mine: State['fields'], theirs: State['fields']) =>
    againstFile(withDevice({ ...nic, fields: mine }), withDevice({ ...nic, fields: theirs }));

  it('are refused if one side has more', async () => {
    expect(reasons(await against([word('a')], [word('a'), word('b')]))).toEqual(['refused field']);
    expect(reasons(await against([word('a'), word('b')], [word('a')]))).toEqual(['refused field']);
  });

  it('that were renamed or split are harmless', async () => {
    expect((await against([word('a')], [word('b')])).verdict).toBe('loads');
    const text = [bytes('runstate', 100)];
    expect((await against(text, [bytes('runstate', 32), byte('x'), byte('y'), bytes('unused', 66)])).verdict).toBe(
      'loads',
    );
  });

  it('that are arrays must have the same number of elements, unless a field states the number', async () => {
    expect(firstOf(await against([words('q', [1, 2])], [words('q', [1, 2, 3])]))).toMatchObject({
      effect: 'refused',
      rule: 'field',
      message: "the array q has 2 elements, the target's has 3 elements",
    });
    const counted = (n: number) => [word('n', n), words('q', new Array(n).fill(0))];
    expect((await against(counted(3), counted(3))).verdict).toBe('loads');
    // The target can read it, and may still insist on its own number, as the HPET does for its timers.
    expect(reasons(await against(counted(2), counted(3)))).toEqual(['doubt field']);
    expect(reasons(await against([word('n', 0)], counted(3)))).toEqual(['doubt field']);
    const sized = (n: number) => [word('n', n), bytes('data', n)];
    expect(reasons(await against(sized(2), sized(3)))).toEqual(['doubt field']);
    expect((await against([word('n', 1)], counted(3))).verdict).toBe('refused');
  });

  it('that must be equal on the target are compared', async () => {
    const ports = (n: number, type: string) => [word('ports', n, type)];
    for (const type of ['uint32 equal', 'int32 equal']) {
      expect(reasons(await against(ports(4, type), ports(6, type)))).toEqual(['refused value']);
      expect((await against(ports(4, type), ports(4, type))).verdict).toBe('loads');
    }
    expect(reasons(await against(ports(3, 'int32 le'), ports(2, 'int32 le')))).toEqual(['refused value']);
    expect((await against(ports(1, 'int32 le'), ports(2, 'int32 le'))).verdict).toBe('loads');
    expect((await against(ports(1, 'uint32'), ports(2, 'uint32'))).verdict).toBe('loads');
  });

  it('with types of their device are refused or doubted with another size', async () => {
    const of = (type: string, size: number) => [bytes('x', size, type)];
    expect(reasons(await against(of('msix state', 20), of('msix state', 36)))).toEqual(['refused field']);
    expect(reasons(await against(of('odd', 20), of('odd', 36)))).toEqual(['doubt field']);
  });
});

describe('PCI devices', () => {
  /** A configuration space with a virtio and an MSI-X capability. */
  const space = (...changes: [at: number, value: number][]) => {
    const config = new Uint8Array(256);
    config.set([0xf4, 0x1a, 0x00, 0x10, 0, 0, 0x10, 0, 0, 0, 0, 2]);
    config.set([0x01], 0x10);
    config[0x34] = 0x98;
    config.set([0x09, 0x00, 0x14, 0x01, 0x04], 0x84);
    config.set([0x11, 0x84, 0x03, 0x00, 0x01, 0, 0, 0, 0x01, 0x08], 0x98);
    for (const [at, value] of changes) config[at] = value;
    return config;
  };
  const pci = (config: Uint8Array): Saved =>
    withDevice({
      ...nic,
      fields: structs('parent_obj', { name: 'PCIDevice', version: 2, fields: [raw('config', 'pci config', config)] }),
    });
  const virtio = (config: Uint8Array): Saved =>
    withDevice({ ...nic, fields: [raw('virtio', 'virtio', join(u32(2), config, filled(0, 50)))] });

  it.each([
    ['device id', 0x02],
    ['class', 0x0b],
    ['header type', 0x0e],
    ['kind of a BAR', 0x10],
    ['first capability', 0x34],
    ['id of a capability', 0x84],
    ['next capability', 0x99],
    ['content of a virtio capability', 0x88],
    ['number of vectors', 0x9a],
    ['place of the vectors', 0x9d],
  ])('are refused with another %s', async (_, at) => {
    const changed = space([at, (space()[at] as number) ^ 0x04]);
    for (const kind of [pci, virtio]) {
      const result = await againstFile(kind(changed), kind(space()));
      expect(result.verdict).toBe('refused');
      expect(firstOf(result).rule).toBe('pci-config');
    }
  });

  it.each([
    ['command', 0x04],
    ['interrupt line', 0x3c],
    ['address in a BAR', 0x12],
    ['switch of MSI-X', 0x9b],
  ])('load with another %s, which a guest can write or which does not matter', async (_, at) => {
    const changed = space([at, (space()[at] as number) ^ 0x80]);
    expect((await againstFile(pci(changed), pci(space()))).verdict).toBe('loads');
  });

  it('are a doubt with another subsystem id, which some devices compare', async () => {
    const result = await againstFile(pci(space([0x2e, 17])), pci(space()));
    expect(reasons(result)).toEqual(['doubt pci-config']);
  });

  it('may have capabilities in a circle', async () => {
    const circle = space([0x85, 0x98]);
    expect((await againstFile(pci(circle), pci(circle))).verdict).toBe('loads');
  });
});

describe('a file that is bad', () => {
  it('is refused if it is truncated, whatever the target', async () => {
    const whole = savedFile(withDevice(nic));
    const result = await againstDump(whole.subarray(0, 100), [nicDump]);
    expect(result.verdict).toBe('refused');
    expect(result.reasons.find(({ rule }) => rule === 'file')).toMatchObject({
      message: expect.stringContaining('[truncated]'),
      place: { offset: 100 },
    });
  });

  it('is refused if it is another kind of file, with a hint for a dump', async () => {
    const result = await againstDump(new TextEncoder().encode(dumpText([nicDump])));
    expect(reasons(result)).toEqual(['refused file']);
    expect(firstOf(result).advice).toContain('use the dump as the target');
  });

  it('is judged even if it cannot be opened', () => {
    const error = new MigrationError('bad-libvirt-header', 'no', { source: 'x', offset: 3, coordinate: 'file' });
    expect(checkOf(error, dumpOf([]))).toMatchObject({ source: 'x', verdict: 'refused', reasons: [{ rule: 'file' }] });
  });

  it('cannot be a target', async () => {
    const whole = savedFile(withDevice(nic));
    await expect(readTarget(await opened(whole.subarray(0, 100)))).rejects.toThrow(/truncated/);
  });
});

describe('hostile descriptions and dumps', () => {
  it('are compared up to a limit, and the omitted part is reported', async () => {
    const many = (prefix: string) =>
      Array.from({ length: 2100 }, (_, i) => byte(`${prefix}${i}`, prefix.charCodeAt(0)));
    const result = await againstFile(
      withDevice({ ...nic, fields: many('a') }),
      withDevice({ ...nic, fields: many('b') }),
    );
    expect(result.verdict).toBe('doubtful');
    expect(firstOf(result).message).toMatch(/too many fields to compare/);
  });

  it('are compared a limited number of times', async () => {
    const fields = (prefix: string, count: number) => Array.from({ length: count }, (_, i) => byte(`${prefix}${i}`));
    const rings = Array.from({ length: 20 }, () => ({ name: 'ring', version: 1, fields: fields('a', 1000) }));
    const nested = {
      name: 'ring',
      version: 1,
      fields: fields('b', 3000).map(({ json }) => ({ name: json.name as string, size: 1 })),
    };
    const saved = withDevice({ ...nic, fields: structs('rings', ...rings) });
    const few = await againstDump(saved, [{ ...nicDump, fields: [{ name: 'rings', size: 9, nested }] }]);
    expect(few.reasons.map(({ message }) => message).join()).toMatch(/too many fields to compare/);
    const many = Array.from({ length: 17 }, (_, i) => ({
      ...nicDump,
      fields: [{ name: 'rings', size: 9 + i, nested }],
    }));
    expect(firstOf(await againstDump(saved, many)).message).toMatch(/17 types .* too many to compare/);
  });

  it('give at most 1,000 reasons, and the number of further ones', async () => {
    const devices = Array.from({ length: 1500 }, (_, i) => device(nic, { idstr: `0000:00:03.0/new${i}` }));
    const result = await againstFile({ devices }, {});
    expect(result).toMatchObject({ verdict: 'refused', reasonsOmitted: 500 });
    expect(result.reasons).toHaveLength(1000);
  });

  it('give a verdict whatever fields both sides have', async () => {
    const name = fc.constantFrom('a', 'b', 'c[0]', 'c[1]', '');
    const field = fc.oneof(
      name.map((n) => word(n, 0)),
      fc.tuple(name, fc.nat(3)).map(([n, length]) => words(n, new Array(length).fill(0))),
      name.map((n) => byte(n)),
      fc.tuple(name, fc.constantFrom('buffer', 'virtio', 'pci config', 'odd')).map(([n, type]) => bytes(n, 9, type)),
      name.map((n) => structs(n, { name: 's', version: 1, fields: [word('x')] })[0] as State['fields'][0]),
    );
    const fields = fc.array(field, { maxLength: 6 });
    await fc.assert(
      fc.asyncProperty(fields, fields, async (mine, theirs) => {
        const result = await againstFile(withDevice({ ...nic, fields: mine }), withDevice({ ...nic, fields: theirs }));
        expect(['loads', 'doubtful', 'refused']).toContain(result.verdict);
        const self = await againstFile(withDevice({ ...nic, fields: mine }), withDevice({ ...nic, fields: mine }));
        expect(self.verdict).toBe('loads');
      }),
      { numRuns: 50 },
    );
  });
});

describe('timers and other types with a size of their own in memory', () => {
  const timer = (name: string) => raw(name, 'timer', new Uint8Array(8));
  const against = (name: string, size: number) =>
    againstDump(withDevice({ ...nic, fields: [word('mac'), timer('timer')] }), [
      {
        ...nicDump,
        fields: [
          { name: 'mac', size: 4 },
          { name, size },
        ],
      },
    ]);

  it.each([8, 48])('are the same field with %i bytes in a dump', async (size) => {
    expect(await against('timer', size)).toMatchObject({ verdict: 'loads', reasons: [] });
    expect((await against('qtimer', size)).verdict).toBe('loads');
  });

  it('are not other fields', async () => {
    expect((await against('qtimer', 4)).verdict).toBe('refused');
  });

  it.each(['cpsr', 'fpscr'])('apply to %s, too', async (type) => {
    const fields = [raw('register', type, new Uint8Array(4))];
    const result = await againstDump(withDevice({ ...nic, fields }), [
      { ...nicDump, fields: [{ name: 'register', size: 920 }] },
    ]);
    expect(result).toMatchObject({ verdict: 'loads', reasons: [] });
  });
});

describe('a section whose description does not fit', () => {
  const longer = (value: number): State => ({
    ...nic,
    fields: [{ json: { name: 'mac', type: 'uint32', size: 4 }, bytes: join(u32(value), u32(0)) }],
  });
  const fitting = { ...nic, fields: [word('mac', 1), bytes('chpids', 4)] };

  it('is not judged, on either side, and is a condition', async () => {
    for (const [mine, theirs] of [
      [longer(2), fitting],
      [fitting, longer(2)],
    ] as const) {
      const result = await againstFile(withDevice(mine), withDevice(theirs));
      expect(result).toMatchObject({ verdict: 'loads', reasons: [] });
      expect(result.conditions).toEqual(['its fields of 0000:00:03.0/nic are the same']);
    }
    const byDump = await againstDump(withDevice(longer(2)), [{ ...nicDump, fields: [{ name: 'other', size: 2 }] }]);
    expect(byDump).toMatchObject({ verdict: 'loads', reasons: [] });
    expect(byDump.conditions).toContain('its fields of 0000:00:03.0/nic are the same');
  });

  it('loads without a condition if the bytes are the same', async () => {
    const result = await againstFile(withDevice(longer(2)), withDevice(longer(2)));
    expect(result).toMatchObject({ verdict: 'loads', conditions: [] });
  });
});

describe('lists of CPU registers', () => {
  const cpu = (...indexes: number[]): Saved => ({
    devices: [
      {
        state: {
          name: 'cpu',
          version: 1,
          fields: [
            word('cpreg_vmstate_array_len', indexes.length, 'int32 le'),
            words('cpreg_vmstate_indexes', indexes),
            words('cpreg_vmstate_values', indexes),
          ],
        },
      },
    ],
  });

  it('may lack registers of the target, wherever they are', async () => {
    expect((await againstFile(cpu(1, 3), cpu(1, 2, 3, 4))).verdict).toBe('loads');
  });

  it('may not have a register that the target lacks', async () => {
    const result = await againstFile(cpu(1, 5), cpu(1, 2, 3, 4));
    expect(reasons(result)).toEqual(['refused value']);
    expect(firstOf(result).message).toContain("the target's CPU does not have the registers 0x5,");
  });

  it('may not be longer than those of the target', async () => {
    expect(reasons(await againstFile(cpu(1, 2, 3), cpu(1, 2)))).toEqual(['refused value', 'refused value']);
  });

  it('are a condition if the target is known by a dump', async () => {
    const fields = ['array_len', 'indexes', 'values'].map((name) => ({ name: `cpreg_vmstate_${name}`, size: 4 }));
    const result = await againstDump(cpu(1), [{ name: 'cpu', version: 1, fields }]);
    expect(result.conditions).toContain('its CPUs have the registers listed in cpreg_vmstate_indexes');
  });
});

describe('elements of an array with different fields', () => {
  const drive = (set: number): State => ({
    name: 'ide_drive',
    version: 3,
    fields: [word('identify_set', set), ...(set === 1 ? [bytes('identify_data', 512)] : [])],
  });
  const disks = (...set: number[]): Saved =>
    withDevice({ ...nic, fields: [word('serial', set.length), ...structs('bus', ...set.map(drive))] });

  it.each([
    [
      [0, 1],
      [1, 0],
    ],
    [
      [1, 1],
      [0, 0],
    ],
    [
      [0, 0],
      [1, 1],
    ],
    [
      [0, 1],
      [0, 0],
    ],
  ])('%j loads where the target saved %j: a switch in the file decides', async (mine, theirs) => {
    expect(await againstFile(disks(...mine), disks(...theirs))).toMatchObject({ verdict: 'loads', conditions: [] });
  });

  it('does not load without a switch', async () => {
    const plain = { ...nic, fields: [word('a', 1), bytes('b', 512)] };
    const result = await againstFile(withDevice(plain), withDevice({ ...nic, fields: [word('a', 1)] }));
    expect(result.verdict).toBe('refused');
  });
});

describe('features of virtio devices', () => {
  const net = (features: bigint): Saved =>
    withDevice({ name: 'virtio-net', version: 11, fields: [raw('virtio', 'virtio', virtioBody({ features }))] });
  const used = (1n << 32n) | (1n << 15n) | (1n << 5n);
  const clause = 'its 0000:00:03.0/virtio-net offers MRG_RXBUF';

  it('that the guest uses are a condition, unless the guest of the target uses them, too', async () => {
    const result = await againstFile(net(used), net((1n << 32n) | (1n << 5n)));
    expect(result).toMatchObject({ verdict: 'loads', conditions: [clause] });
    expect(reasons(result)).toEqual(['needed virtio-features']);
    expect((await againstFile(net(used), net(used | 1n))).conditions).toEqual([]);
  });

  it('are a condition if the target is known by a dump', async () => {
    const fields = [{ name: 'virtio', size: 0 }];
    const result = await againstDump(net(used), [{ name: 'virtio-net', version: 11, fields }]);
    expect(result.conditions).toContain('its 0000:00:03.0/virtio-net offers MAC, MRG_RXBUF, VERSION_1');
  });
});

describe('conditions', () => {
  it('are in the order of the reasons, and those of a dump come last', async () => {
    const { verdict, conditions } = await againstDump(
      { uuid: '0123456789abcdef0011223344556677', machine: 'none' },
      [],
      'none',
    );
    expect(verdict).toBe('loads');
    expect(conditions).toEqual([
      'it has the UUID 01234567-89ab-cdef-0011-223344556677, or none',
      'it is QEMU 10.0 or newer',
      'it has the same RAM and devices',
    ]);
  });

  it('name subsections that the target did not need to save', async () => {
    const sub = { ...nic, subsections: [{ name: 'nic/tso', version: 1, fields: [word('size')] }] };
    expect((await againstFile(withDevice(sub), withDevice(nic))).conditions).toEqual([
      'it knows the subsection nic/tso',
    ]);
  });
});
