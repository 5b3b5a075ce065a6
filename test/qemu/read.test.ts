/**
 * vmferry reads real QEMU's output to its last byte, with every RAM block equal to the stopped source's; and real QEMU
 * loads a mapped-ram file that vmferry wrote.
 *
 * The built command line does the reading. The essential subset runs with `npm run test:qemu`; VMFERRY_QEMU=full runs
 * all.
 */
import { constants, openSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { MappedRamStore, NodeFile, open, settle } from '../../src/node.ts';
import { runCli } from '../run-cli.ts';
import { type CaptureOptions, capture } from './capture.ts';
import { type Expected, equalFiles, expectRead } from './expect-read.ts';
import { loadInto } from './load.ts';
import type { MachineKind } from './machine.ts';
import { lacksQemu } from './require.ts';

interface Case {
  name: string;
  options: CaptureOptions;
  /** Part of the subset that `npm run test:qemu` runs. */
  essential?: boolean;
  expected?: Expected;
}

const workload = { passes: 5 };
const machines: MachineKind[] = ['none', 'bare', 'pc', 'q35'];

/** Every machine by every route, for both versions. */
function allCases(): Case[] {
  const cases: Case[] = [];
  for (const version of ['7.2', '10.0'] as const) {
    for (const machine of machines) {
      const essential = machine === 'none' || machine === 'q35';
      cases.push({ name: `${machine} plain ${version}`, options: { version, machine, route: 'exec' }, essential });
      if (machine === 'none') continue;
      cases.push({
        name: `${machine} multi-pass ${version}`,
        options: { version, machine, route: 'exec', workload },
        expected: { passes: 4 },
      });
      cases.push({
        name: `${machine} XBZRLE ${version}`,
        options: { version, machine, route: 'exec', workload, capabilities: ['xbzrle'] },
        essential: machine === 'pc',
        expected: { passes: 4, hasDeltas: true },
      });
    }
    cases.push({
      name: `pc without vmdesc ${version}`,
      options: { version, machine: 'pc', route: 'exec', properties: ['suppress-vmdesc=on'] },
    });
    cases.push({
      name: `bare postcopy ${version}`,
      options: {
        version,
        machine: 'bare',
        route: 'socket',
        workload: { passes: 3, postcopy: true },
        capabilities: ['postcopy-ram'],
      },
    });
  }
  const version = '10.0';
  const expected = { format: 'mapped-ram' };
  const multifd = { capabilities: ['multifd'], parameters: { 'multifd-channels': 3 } };
  for (const machine of machines) {
    const base = { version, machine, route: 'mapped-ram' } as const;
    cases.push({ name: `${machine} mapped-ram`, options: base, expected, essential: machine === 'pc' });
    cases.push({
      name: `${machine} mapped-ram multifd`,
      options: { ...base, ...multifd },
      expected,
      essential: machine === 'q35',
    });
    cases.push({
      name: `${machine} mapped-ram at an offset`,
      options: { ...base, offset: 12345 },
      expected,
      essential: machine === 'none',
    });
  }
  cases.push({
    name: 'pc mapped-ram of a dirtying guest',
    options: { version, machine: 'pc', route: 'mapped-ram', workload },
    expected,
  });
  cases.push({
    name: 'q35 mapped-ram without zero page detection',
    options: { version, machine: 'q35', route: 'mapped-ram', parameters: { 'zero-page-detection': 'none' } },
    expected,
  });
  cases.push(...multifdCases());
  cases.push({
    name: 'pc compressed pages 7.2',
    options: { version: '7.2', machine: 'pc', route: 'exec', workload, capabilities: ['compress'] },
    essential: true,
    expected: { hasCompressed: true },
  });
  cases.push({
    name: 'pc background snapshot 10.0',
    options: { version, machine: 'pc', route: 'exec', capabilities: ['background-snapshot'], workload: { passes: 2 } },
  });
  cases.push({ name: 'pc file: at an offset', options: { version, machine: 'pc', route: 'file', offset: 4096 } });
  return cases;
}

/** Multifd through sockets: both versions, every compression and zero page detection, old and new zero page marks. */
function multifdCases(): Case[] {
  const cases: Case[] = [];
  const base = { machine: 'q35', route: 'multifd', workload } as const;
  for (const compression of ['none', 'zlib', 'zstd']) {
    const parameters = {
      'multifd-compression': compression,
      'multifd-channels': compression === 'zlib' ? 4 : 2,
      // Compressed data takes less time on the wire: reduce the bandwidth, so that the guest keeps up with the passes.
      ...(compression === 'none' ? {} : { 'max-bandwidth': 4 << 20 }),
    };
    const essential = compression === 'zstd';
    cases.push({
      name: `q35 multifd ${compression} 7.2`,
      options: { ...base, version: '7.2', parameters },
      essential: compression === 'none',
    });
    cases.push({
      name: `q35 multifd ${compression} of an old machine type 10.0`,
      options: { ...base, version: '10.0', type: 'pc-q35-8.0', parameters },
    });
    for (const detection of ['none', 'legacy', 'multifd']) {
      cases.push({
        name: `q35 multifd ${compression}, zero pages ${detection} 10.0`,
        options: { ...base, version: '10.0', parameters: { ...parameters, 'zero-page-detection': detection } },
        essential: essential && detection === 'multifd',
      });
    }
  }
  cases.push({
    name: 'bare multifd of 16 channels 10.0',
    options: { ...base, machine: 'bare', version: '10.0', parameters: { 'multifd-channels': 16 } },
  });
  return cases;
}

const isFull = process.env.VMFERRY_QEMU === 'full';
const cases = allCases().filter(({ essential }) => isFull || essential === true);

describe.skipIf(lacksQemu('7.2', '10.0'))('output of QEMU', () => {
  test.each(cases)('$name', async ({ options, expected = {} }) => {
    const made = await capture(options);
    try {
      await expectRead(made, expected);
    } finally {
      made.dispose();
    }
  });
});

describe.skipIf(lacksQemu('7.2', '10.0'))('output of vmferry', () => {
  test.each(['none', 'q35'] as const)(
    'a mapped-ram file from an XBZRLE or plain stream of %s is loaded by QEMU 10.0',
    async (machine) => {
      const isNone = machine === 'none';
      const made = await capture({
        version: '10.0',
        machine,
        route: 'exec',
        ...(isNone ? {} : { workload, capabilities: ['xbzrle'] }),
      });
      try {
        const path = `${made.file}.mapped-ram`;
        const output = new NodeFile(openSync(path, constants.O_RDWR | constants.O_CREAT), path, 0);
        const file = await open(made.file);
        const store = new MappedRamStore(output, file.pageSlots);
        const { devices, description } = await settle(file, store, { devices: true });
        await store.finish(devices, description);
        await output.close();
        await file.close();
        const { version: _, route: __, workload: ___, capabilities: ____, ...options } = made.options;
        const loaded = await loadInto({ ...options, version: '10.0', route: 'mapped-ram', file: path });
        try {
          expect([...loaded.truth.keys()].sort()).toEqual([...made.truth.keys()].sort());
          for (const [idstr, { path: there }] of loaded.truth) {
            expect(await equalFiles(there, made.truth.get(idstr)?.path ?? ''), `${idstr} equals the source's`).toBe(
              true,
            );
          }
        } finally {
          loaded.dispose();
        }
        const verified = await runCli(['verify', '--json', path]);
        expect(JSON.parse(verified.stdout)).toMatchObject({ ok: true, format: 'mapped-ram' });
      } finally {
        made.dispose();
      }
    },
  );
});
