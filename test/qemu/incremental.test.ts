/**
 * A guest is saved twice and works in between. `diff` finds the changed pages. Real QEMU loads the first save merged
 * with the changes: its RAM equals the second save's, and the guest continues.
 *
 * The essential subset runs with `npm run test:qemu`; VMFERRY_QEMU=full runs all.
 */
import { mkdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { runCli } from '../run-cli.ts';
import { expectRunsOn, loadInto } from './load.ts';
import { fillStripes, type Machine, MiB, PAGE, pagesOfOurs, type Running, startMachine } from './machine.ts';
import type { Qemu } from './qemu.ts';
import { lacksQemu } from './require.ts';
import { type Addresses, differences, findAddresses, readTruth, type Truth } from './truth.ts';
import { waitForFile } from './wait-until.ts';

type Form = 'stream' | 'mapped-ram';

interface Case {
  machine: Machine;
  /** The forms of QEMU's two saves. */
  forms: [Form, Form];
  essential?: boolean;
}

const cases: Case[] = [
  { machine: { version: '7.2', machine: 'bare' }, forms: ['stream', 'stream'], essential: true },
  { machine: { version: '10.0', machine: 'bare' }, forms: ['mapped-ram', 'stream'], essential: true },
  { machine: { version: '10.0', machine: 'bare' }, forms: ['stream', 'mapped-ram'] },
  { machine: { version: '7.2', machine: 'pc' }, forms: ['stream', 'stream'] },
  { machine: { version: '10.0', machine: 'pc' }, forms: ['mapped-ram', 'mapped-ram'] },
  { machine: { version: '10.0', machine: 'q35' }, forms: ['stream', 'mapped-ram'] },
];
const wanted = cases.filter(({ essential }) => process.env.VMFERRY_QEMU === 'full' || essential === true);

/** Saves a running guest and leaves it stopped. Returns the truth of the saved moment. */
async function save({ qemu }: Running, addresses: Addresses, form: Form, file: string): Promise<Truth> {
  if (form === 'mapped-ram') await qemu.setCapabilities(['mapped-ram']);
  await qemu.setParameters({ 'max-bandwidth': 0 });
  const uri = form === 'mapped-ram' ? `file:${file}` : `exec:cat > '${file}.part' && mv '${file}.part' '${file}'`;
  await qemu.execute('migrate', { uri });
  await qemu.waitForMigration();
  await waitForFile(file);
  if (form === 'mapped-ram') await qemu.clearCapabilities(['mapped-ram']);
  return readTruth(qemu, await directoryIn(qemu, file), addresses);
}

async function directoryIn({ dir }: Qemu, file: string): Promise<string> {
  const path = join(dir, `truth-of-${file.split('/').at(-1)}`);
  mkdirSync(path);
  return path;
}

/** The pages that differ, by idstr. */
function changedPages(old: Truth, now: Truth): Record<string, number[]> {
  return Object.fromEntries(
    [...now].map(([idstr, { path }]) => {
      const [before, after] = [readFileSync(old.get(idstr)?.path ?? ''), readFileSync(path)];
      const pages = Array.from({ length: after.length / PAGE }, (_, page) => page);
      const differs = (page: number) =>
        before.compare(after, page * PAGE, (page + 1) * PAGE, page * PAGE, (page + 1) * PAGE) !== 0;
      return [idstr, pages.filter(differs)];
    }),
  );
}

describe.skipIf(lacksQemu('7.2', '10.0'))('a guest saved twice', () => {
  test.each(wanted)('$machine.machine $machine.version as $forms', async ({ machine, forms }) => {
    const running = await startMachine(machine);
    const { qemu, guest } = running;
    try {
      const ours = pagesOfOurs(machine);
      await fillStripes(running, ours);
      const addresses = await findAddresses(qemu);
      const [base, now, changes] = ['base', 'now', 'changes'].map((name) => join(qemu.dir, name)) as [
        string,
        string,
        string,
      ];
      const before = await save(running, addresses, forms[0], base);
      await qemu.execute('cont');
      const [dirty, zeroed] = [
        { first: ours.first + 40, count: 24 },
        { first: ours.first + 80, count: 8 },
      ];
      await guest?.dirty(dirty, 'few-bytes', 1);
      await guest?.fill(zeroed, 'zero');
      const after = await save(running, addresses, forms[1], now);

      const known = changedPages(before, after);
      const main = known['pc.ram'] ?? [];
      const inOurs = main.filter((page) => page >= ours.first && page < ours.first + ours.count);
      const expected = [dirty, zeroed].flatMap(({ first, count }) =>
        Array.from({ length: count }, (_, i) => first + i),
      );
      expect(inOurs).toEqual(expected);

      const { code, stdout } = await runCli(['diff', base, now, '--json', '--all']);
      expect(code).toBe(1);
      const { ram } = JSON.parse(stdout) as {
        ram: {
          blocks: { idstr: string; ranges: { first: number; count: number }[]; changes: { becameZero: number } }[];
        };
      };
      const found = ram.blocks.map(({ idstr, ranges }) => [
        idstr,
        ranges.flatMap(({ first, count }) => Array.from({ length: count }, (_, i) => first + i)),
      ]);
      expect(Object.fromEntries(found)).toEqual(known);
      expect(ram.blocks.find(({ idstr }) => idstr === 'pc.ram')?.changes.becameZero).toBeGreaterThanOrEqual(8);

      const converted = await runCli(['convert', now, changes, '--only-changed-from', base, '--json']);
      expect([converted.code, converted.stderr]).toEqual([0, '']);
      const { blocks } = JSON.parse(converted.stdout) as { blocks: { idstr: string; changedPages: number }[] };
      expect(Object.fromEntries(blocks.map(({ idstr, changedPages }) => [idstr, changedPages]))).toEqual(
        Object.fromEntries(Object.entries(known).map(([idstr, pages]) => [idstr, pages.length])),
      );
      for (const name of machine.version === '7.2' ? ['again.stream'] : ['again.stream', 'again.mapped-ram']) {
        const path = join(qemu.dir, name);
        const merged = await runCli(['merge', base, changes, path]);
        expect([merged.code, merged.stderr]).toEqual([0, '']);
        expect((await runCli(['diff', path, now])).code).toBe(0);
        const loaded = await loadInto({
          ...machine,
          route: name.endsWith('stream') ? 'exec' : 'mapped-ram',
          file: path,
        });
        expect(differences(loaded.truth, after), `RAM loaded from ${name}`).toEqual([]);
        loaded.dispose();
        await expectRunsOn(machine, path);
      }
      if (machine.version === '7.2') return;
      // It is not a VM by itself.
      const load = loadInto({ ...machine, route: 'mapped-ram', file: changes });
      await expect(load).rejects.toThrow(/Received unknown capability vmferry-changes/);
    } finally {
      guest?.close();
      await qemu[Symbol.asyncDispose]();
    }
  });
});

describe.skipIf(lacksQemu('10.0'))('changes of a guest of 256 MiB', () => {
  test('take about as much disk space as the changed pages', async () => {
    const machine: Machine = { version: '10.0', machine: 'bare', ramMiB: 256 };
    const running = await startMachine(machine);
    const { qemu, guest } = running;
    try {
      const addresses = await findAddresses(qemu);
      const ours = pagesOfOurs(machine);
      await guest?.fill(ours, 'text', 3);
      const [base, now, changes] = ['base', 'now', 'changes'].map((name) => join(qemu.dir, name)) as [
        string,
        string,
        string,
      ];
      await save(running, addresses, 'stream', base);
      await qemu.execute('cont');
      await guest?.dirty({ first: 1000, count: 655 }, 'few-bytes', 1);
      await save(running, addresses, 'mapped-ram', now);
      const { code } = await runCli(['convert', now, changes, '--only-changed-from', base]);
      expect(code).toBe(0);
      const share = (statSync(changes).blocks * 512) / (256 * MiB);
      console.log(`${(share * 100).toFixed(2)} % of RAM on disk for 1 % of changed pages`);
      expect(share).toBeGreaterThan(0.0099);
      expect(share).toBeLessThan(0.012);
    } finally {
      guest?.close();
      await qemu[Symbol.asyncDispose]();
    }
  });
});
