/**
 * A relay that encodes RAM again between real QEMUs: any source, any number of channels and compression at the target. RAM at
 * the target equals that of the stopped source, and the guest goes on. A target that expects something else refuses, and the
 * guest stays at the source.
 *
 * The essential subset runs with `npm run test:qemu`; VMFERRY_QEMU=full runs all.
 */
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { Between, failureOf, multifd, reportOf, type Setup, startRelay } from './between.ts';
import { Guest } from './guest.ts';
import type { LiveCommand } from './live-command.ts';
import { Qemu, type QemuVersion } from './qemu.ts';
import { lacksQemu } from './require.ts';

const isFull = process.env.VMFERRY_QEMU === 'full';

type Method = 'none' | 'zlib' | 'zstd';

const encode = (channels: number, compression: Method) => [
  ...['--target-multifd-channels', String(channels), '--target-multifd-compression', compression],
];

/** What a target needs for it. */
const takes = (channels: number, compression: Method, more: string[] = []): Required<Setup>['target'] => ({
  capabilities: ['multifd', ...more],
  parameters: multifd(channels, compression),
});

interface Source {
  capabilities?: string[];
  parameters?: Record<string, unknown>;
}

const sources: Record<string, Source> = {
  plain: {},
  xbzrle: { capabilities: ['xbzrle'] },
  'multifd 2 none': { capabilities: ['multifd'], parameters: multifd(2, 'none') },
  'multifd 3 zlib': { capabilities: ['multifd'], parameters: multifd(3, 'zlib') },
  'multifd 4 zstd': { capabilities: ['multifd'], parameters: multifd(4, 'zstd') },
};

interface Case {
  version: QemuVersion;
  source: keyof typeof sources & string;
  channels: number;
  method: Method;
  /** With a return path, and so on. */
  more?: string[];
  isEssential?: boolean;
}

const methods: Method[] = ['none', 'zlib', 'zstd'];

/** The essential cases, and all pairs of source and encoding. */
const cases: Case[] = [
  { version: '7.2', source: 'xbzrle', channels: 3, method: 'zlib', more: ['return-path'], isEssential: true },
  { version: '10.0', source: 'plain', channels: 2, method: 'zstd', more: ['return-path'], isEssential: true },
  { version: '10.0', source: 'multifd 4 zstd', channels: 1, method: 'none', isEssential: true },
  ...(['7.2', '10.0'] as const).flatMap((version) =>
    Object.keys(sources).flatMap((source, i) =>
      methods.flatMap((method, j) =>
        [1, 2, 4, 8, 16]
          .filter((_, k) => (i + j + k) % 2 === 0)
          .map((channels) => ({ version, source, channels, method, more: (i + j) % 2 === 0 ? ['return-path'] : [] })),
      ),
    ),
  ),
];

const nameOf = ({ version, source, channels, method, more = [] }: Case) =>
  `${version}: ${[source, ...more].join(', ')} to ${channels} channels ${method}`;
const chosen = cases.filter(({ isEssential }) => isFull || isEssential === true);

const setupOf = ({ version, source, channels, method, more = [] }: Case): Setup => {
  const { capabilities = [], parameters = {} } = sources[source] as Source;
  return {
    ...{ version, capabilities: [...capabilities, ...more], parameters },
    ...{ target: takes(channels, method, more), args: encode(channels, method) },
  };
};

/** The guest goes on at the target. */
async function expectGoesOnThere({ target }: Between): Promise<void> {
  const guest = await Guest.resume(target);
  await guest.dirty({ first: 256, count: 10 }, 'few-bytes', 2);
  guest.close();
}

describe.skipIf(lacksQemu('7.2', '10.0'))('another encoding for the target', () => {
  test.each(chosen.map((each) => [nameOf(each), each] as const))('%s', async (_, each) => {
    await using between = await Between.start(setupOf(each));
    await between.migrate();
    const report = await reportOf(between.relay);
    const confirmed = each.more?.includes('return-path') === true;
    expect(report).toMatchObject({ confirmed, postcopy: false, connections: 1 + each.channels });
    expect(report.ratio).toBeCloseTo((report.forwardBytes as number) / (report.sourceBytes as number), 12);
    // A third of the pages are random bytes, and a quarter is text or a single byte.
    const isUnpacked = !/zlib|zstd/.test(each.source);
    if (isUnpacked && each.method !== 'none') expect(report.ratio).toBeLessThan(1);
    await between.expectSame();
    await expectGoesOnThere(between);
  });

  test('a 7.2 source, a 10.0 target with zstd, and a file of the same moment', async () => {
    const kept = join(Qemu.makeDir(), 'kept.mapped-ram');
    await using between = await Between.start({
      ...{ version: '7.2', targetVersion: '10.0', machine: { type: 'pc-i440fx-7.2' } },
      ...{ capabilities: ['xbzrle', 'return-path'], target: takes(2, 'zstd', ['return-path']) },
      args: [...encode(2, 'zstd'), '--tee', kept],
    });
    await between.migrate();
    expect(await reportOf(between.relay)).toMatchObject({ confirmed: true, connections: 3 });
    await between.expectSame(kept);
    await expectGoesOnThere(between);
  });

  test('none on both hosts, zstd between two relays', async () => {
    let second: LiveCommand | undefined;
    const setup: Setup = {
      ...{
        version: '10.0',
        capabilities: ['multifd', 'return-path', 'switchover-ack'],
        parameters: multifd(2, 'none'),
      },
      via: (target) => {
        second = startRelay(target, encode(2, 'none'));
        return second.uri();
      },
      args: encode(4, 'zstd'),
    };
    await using between = await Between.start(setup);
    await between.migrate();
    const [first, last] = [await reportOf(between.relay), await reportOf(second as LiveCommand)];
    expect(first).toMatchObject({ confirmed: true, connections: 5 });
    expect(last).toMatchObject({ confirmed: true, connections: 3, sourceBytes: first.forwardBytes });
    expect(first.ratio).toBeLessThan(1);
    await between.expectSame();
    await expectGoesOnThere(between);
  });
});

const refusals: [string, QemuVersion, Required<Setup>['target'], string[]][] = [
  ['another compression', '10.0', takes(2, 'zlib', ['return-path']), encode(2, 'zstd')],
  ['another compression', '7.2', takes(2, 'none', ['return-path']), encode(2, 'zlib')],
  ['fewer channels', '10.0', takes(1, 'none', ['return-path']), encode(3, 'none')],
  ['no multifd', '10.0', { capabilities: ['return-path'] }, encode(2, 'none')],
];

describe.skipIf(lacksQemu('7.2', '10.0'))('a target that expects something else refuses', () => {
  test.each(refusals)('%s: %s', async (_, version, target, args) => {
    await using between = await Between.start({ version, capabilities: ['return-path'], target, args });
    const { source, relay } = between;
    await between.guest.startDirtying(between.ours, 'mixed');
    await source.execute('migrate', { uri: await relay.uri() });
    expect(await failureOf(relay)).toMatchObject({ guest: 'source' });
    await expect(source.waitForMigration()).rejects.toThrow(/failed/);
    await between.expectGoesOn();
  });

  test('no postcopy-ram, which 10.0 refuses beside multifd', async () => {
    const setup: Setup = { version: '10.0', capabilities: ['postcopy-ram'], target: takes(2, 'none') };
    await using between = await Between.start({ ...setup, args: encode(2, 'none') });
    await between.guest.startDirtying(between.ours, 'mixed');
    await between.source.execute('migrate', { uri: await between.relay.uri() });
    expect(['source', 'either']).toContain((await failureOf(between.relay)).guest);
    await expect(between.source.waitForMigration()).rejects.toThrow(/failed/);
    await between.expectGoesOn();
  });

  test('more channels: it waits for them, and is given up', async () => {
    const args = [...encode(2, 'none'), '--setup-timeout', '2'];
    const target = takes(3, 'none', ['return-path']);
    await using between = await Between.start({ version: '10.0', capabilities: ['return-path'], target, args });
    await between.guest.startDirtying(between.ours, 'mixed');
    await between.source.execute('migrate', { uri: await between.relay.uri() });
    expect(await failureOf(between.relay)).toMatchObject({
      guest: 'source',
      message: 'the target did not answer within 2 s: it may wait for more multifd channels',
    });
    await expect(between.source.waitForMigration()).rejects.toThrow(/failed/);
    await between.expectGoesOn();
  });
});
