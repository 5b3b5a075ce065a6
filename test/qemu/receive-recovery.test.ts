/**
 * A real QEMU in postcopy into `vmferry receive`, through a proxy that cuts the lines somewhere in postcopy, and sometimes again
 * while it goes on. Sometimes the receiver is killed, and another one goes on with what it kept. In the end RAM is that of the
 * source, which stopped when postcopy began.
 *
 * A few seeded cuts with `npm run test:qemu`; VMFERRY_QEMU=full makes 100.
 */
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { open } from '../../src/node.ts';
import { runCli } from '../run-cli.ts';
import { ramDigests } from '../support/ram-digests.ts';
import { TlsDirectories } from '../tls-directories.ts';
import { LiveCommand } from './live-command.ts';
import { seeded } from './live-end.ts';
import { loadInto } from './load.ts';
import { fillStripes, type Machine, pagesOfOurs, startMachine } from './machine.ts';
import { type Harm, HarmingProxy, type Harms } from './proxy.ts';
import { Qemu, type QemuVersion } from './qemu.ts';
import { lacksQemu } from './require.ts';
import { differences, findAddresses, readTruth, type Truth } from './truth.ts';
import { waitUntil } from './wait-until.ts';

const isFull = process.env.VMFERRY_QEMU === 'full';
const tls = new TlsDirectories();
afterAll(() => tls.remove());
const keys = 'qemu:0123456789abcdef0123456789abcdef\n';
/** How long a 7.2 that waits for a last word on a broken line is left alone, in ms. */
const patienceMs = 3000;
/**
 * A source that has nothing left to send does not pause: a 10.0 fails, and a 7.2 waits for ever, with QEMU at the other end,
 * too. This much may be on its way then, in bytes: two windows of its bandwidth, and what a socket holds.
 */
const onTheWay = 700_000;

interface Mode {
  version: QemuVersion;
  preempt: boolean;
  transport: 'tcp' | 'unix';
  cuts: number;
  isSecure?: boolean;
}

const modes: Mode[] = [
  { version: '10.0', preempt: false, transport: 'tcp', cuts: 3 },
  { version: '10.0', preempt: true, transport: 'unix', cuts: isFull ? 4 : 0 },
  { version: '7.2', preempt: false, transport: 'unix', cuts: isFull ? 4 : 0 },
  { version: '7.2', preempt: true, transport: 'tcp', cuts: 1 },
];

/** The last command of the package, behind which only pages come. */
const run = Buffer.from([8, 0, 5, 0, 0]);

/** A source, and what it has to be compared with. */
async function startSource({ version, preempt, isSecure = false }: Mode) {
  const machine: Machine = { version, machine: 'bare', ramMiB: 6 };
  const started = await startMachine(machine);
  const { qemu, guest } = started;
  await fillStripes(started, pagesOfOurs(machine));
  const addresses = await findAddresses(qemu);
  await qemu.setCapabilities(['events', 'postcopy-ram', ...(preempt ? ['postcopy-preempt'] : [])]);
  // Postcopy begins before everything has come, and the source still sends when the line is cut.
  await qemu.setParameters({ 'max-bandwidth': 400_000, 'max-postcopy-bandwidth': 2_000_000 });
  if (isSecure) {
    await qemu.execute('object-add', {
      'qom-type': 'tls-creds-psk',
      id: 'tls0',
      endpoint: 'client',
      dir: tls.psk(keys),
    });
    await qemu.setParameters({ 'tls-creds': 'tls0' });
  }
  return {
    ...{ qemu, machine },
    truth: () => readTruth(qemu, qemu.dir, addresses),
    async [Symbol.asyncDispose]() {
      guest?.close();
      await qemu[Symbol.asyncDispose]();
    },
  };
}

/** What the source went through, without the search for addresses. */
const statuses = ({ events }: Qemu): string[] =>
  events.filter(({ event }) => event === 'MIGRATION').map(({ data }) => String(data?.status));
const count = (list: readonly string[], status: string) => list.filter((each) => each === status).length;

/**
 * Waits until the source has ended, or has paused `pauses` times. Returns the status. `stuck`: a 7.2 that has sent everything
 * waits for the last word, whatever happens to its line.
 */
async function settled(qemu: Qemu, pauses: number): Promise<string> {
  let status = '';
  const from = performance.now();
  await waitUntil('the source has noticed the cut', async () => {
    const seen = statuses(qemu);
    status = ['completed', 'failed'].find((each) => seen.includes(each)) ?? '';
    if (status === '' && count(seen, 'postcopy-paused') >= pauses) status = 'postcopy-paused';
    if (status === '' && qemu.version === '7.2' && performance.now() - from > patienceMs) {
      if ((await qemu.queryMigrate()).ram?.remaining === 0) status = 'stuck';
    }
    return status !== '';
  });
  return status;
}

const recoveries = ({ stderr }: LiveCommand) => stderr.match(/^recover at \S+$/gm)?.length ?? 0;

interface Outcome {
  /** How often the lines were cut in all. */
  breaks: number;
  /** The source's last status. */
  status: string;
  stderr: string;
}

/** Migrates, and goes on as often as needed. `kills` says whether the receiver is killed after the first break. */
async function migrate(
  { qemu }: { qemu: Qemu },
  { transport, isSecure = false }: Mode,
  out: string,
  {
    first,
    again,
    kills = false,
  }: { first: (connection: number) => Harms; again?: () => Harm | undefined; kills?: boolean },
): Promise<Outcome> {
  const dir = join(out, '..');
  let sockets = 0;
  const uri = () => (transport === 'tcp' ? 'tcp:127.0.0.1:0' : `unix:${join(dir, `socket-${sockets++}`)}`);
  const secure = isSecure
    ? ['--object', `tls-creds-psk,id=tls0,endpoint=server,dir=${tls.psk(keys)}`, '--tls-creds', 'tls0']
    : [];
  let command = new LiveCommand(['receive', uri(), out, ...secure]);
  try {
    let target = await command.uri();
    let handled = 0;
    for (let breaks = 0; ; breaks++) {
      const harm = breaks === 0 ? undefined : again?.();
      await using proxy = await HarmingProxy.open(
        target,
        breaks === 0 ? first : (connection) => (connection === 0 && harm !== undefined ? { there: harm } : {}),
      );
      await qemu.execute('migrate', { uri: proxy.uri, ...(breaks > 0 ? { resume: true } : {}) });
      if (breaks === 0) {
        await qemu.event('MIGRATION', { where: ({ status }) => status === 'active' });
        await qemu.execute('migrate-start-postcopy');
      }
      let hasEnded = false;
      void command.ended.then(() => {
        hasEnded = true;
      });
      const status = await settled(qemu, breaks + 1);
      await waitUntil(
        'the receiver has ended, or waits',
        () => hasEnded || recoveries(command) > handled || ['failed', 'stuck'].includes(status),
      );
      if (hasEnded || status !== 'postcopy-paused') {
        // A 10.0 that has sent everything takes its guest back if it does not hear the last word, and a 7.2 waits for it. One
        // that heard it does not come again, which a receiver whose line was reset cannot know.
        if (!hasEnded && (status !== 'completed' || recoveries(command) > handled)) command.kill('SIGTERM');
        const { stderr } = await command.ended;
        return { breaks, status, stderr };
      }
      handled = recoveries(command);
      expect(readdirSync(dir), command.stderr).toContain(
        existsSync(out) ? 'guest.mapped-ram' : 'guest.mapped-ram.partial',
      );
      if (!kills || breaks > 0) continue;
      command.kill('SIGKILL');
      await command.ended;
      command = new LiveCommand(['receive', '--recover', `${out}.partial`, uri(), ...secure]);
      target = await command.uri();
      handled = 0;
    }
  } finally {
    await command[Symbol.asyncDispose]();
  }
}

/** Requires that OUT has the RAM of the source, and that QEMU loads it. */
async function expectEqual(out: string, truth: Truth, { machine, loads }: { machine: Machine; loads: boolean }) {
  expect(readdirSync(join(out, '..')).filter((name) => name.startsWith('guest'))).toEqual(['guest.mapped-ram']);
  const verified = await runCli(['verify', out]);
  expect(verified.code, verified.stdout).toBe(0);
  await using file = await open(out);
  const found = new Map((await ramDigests(file)).map(({ idstr, sha256 }) => [idstr, sha256]));
  for (const [idstr, { path }] of truth) {
    if (!found.has(idstr)) continue;
    expect([idstr, found.get(idstr)]).toEqual([idstr, createHash('sha256').update(readFileSync(path)).digest('hex')]);
  }
  expect(found.has('pc.ram')).toBe(true);
  if (!loads) return;
  const loaded = await loadInto({ ...machine, route: 'mapped-ram', file: out });
  try {
    expect(differences(loaded.truth, truth)).toEqual([]);
  } finally {
    loaded.dispose();
  }
}

describe.skipIf(lacksQemu('7.2', '10.0'))('postcopy into receive goes on after a cut', () => {
  test.each(modes.filter(({ cuts }) => cuts > 0))('$version over $transport, preempt $preempt', async (mode) => {
    const random = seeded(mode.preempt ? 11 : 5);
    const newOut = () => join(Qemu.makeDir(), 'guest.mapped-ram');
    // Where postcopy begins, and how long it is.
    let main = Buffer.alloc(0);
    const see = (bytes: Uint8Array) => {
      main = Buffer.concat([main, bytes]);
    };
    {
      await using source = await startSource(mode);
      const out = newOut();
      const whole = await migrate(source, mode, out, { first: (each) => (each === 0 ? { there: { see } } : {}) });
      expect(whole, whole.stderr).toMatchObject({ breaks: 0, status: 'completed' });
      await expectEqual(out, await source.truth(), { machine: source.machine, loads: mode.version === '10.0' });
    }
    const begin = main.lastIndexOf(run, main.length - 1) + run.length;
    expect(begin).toBeGreaterThan(run.length);
    const length = main.length - begin;

    let recovered = 0;
    const cuts = isFull ? 25 : mode.cuts;
    for (let i = 0; i < cuts; i++) {
      await using source = await startSource(mode);
      const out = newOut();
      // Every fourth cut is among the last bytes, or in what the source hears.
      const depth = i % 4 === 1 ? length - random() * 60 : random() * length;
      const cut = random() < 0.5 ? ('end' as const) : ('reset' as const);
      const harm = { cutAt: Math.max(begin + 1, begin + Math.floor(depth)), cut };
      const isBack = i % 8 === 5;
      const outcome = await migrate(source, mode, out, {
        first: (each) => (each > 0 ? {} : isBack ? { back: { ...harm, cutAt: 40 } } : { there: harm }),
        again: () => (random() < 0.4 ? { cutAt: 1 + Math.floor(random() * length), cut } : undefined),
        kills: i % 3 === 2,
      });
      const about = `cut ${i}: ${JSON.stringify({ ...harm, isBack, begin, length })}, ${JSON.stringify(outcome)}`;
      if (!existsSync(out)) {
        expect(['failed', 'stuck'], about).toContain(outcome.status);
        expect(outcome.stderr, about).toContain('split');
        if (outcome.breaks === 0) expect(begin + length - harm.cutAt, about).toBeLessThan(onTheWay);
        else recovered++;
        continue;
      }
      if (outcome.breaks > 0) recovered++;
      if (['completed', 'postcopy-paused'].includes(outcome.status)) {
        await expectEqual(out, await source.truth(), {
          machine: source.machine,
          loads: i === 0 && mode.version === '10.0',
        });
      }
    }
    // The others had nothing left to send, see above.
    expect(recovered).toBeGreaterThan(cuts / 2);
  });

  test.each(isFull ? (['7.2', '10.0'] as const) : (['10.0'] as const))('over TLS, %s', async (version) => {
    const random = seeded(17);
    for (let i = 0; i < (isFull ? 12 : 2); i++) {
      const mode: Mode = { version, preempt: i % 4 >= 2, transport: 'tcp', cuts: 1, isSecure: true };
      await using source = await startSource(mode);
      const out = join(Qemu.makeDir(), 'guest.mapped-ram');
      // About 4 MB come in all, and less than one before postcopy. A reset could lose the begin of postcopy, which the receiver has
      // not read yet.
      const there: Harm = { cutAt: 1_000_000 + Math.floor(random() * 2_000_000), cut: 'end' };
      const outcome = await migrate(source, mode, out, {
        first: (each) => (each > 0 ? {} : { there }),
        kills: i % 2 === 1,
      });
      expect(outcome, outcome.stderr).toMatchObject({ breaks: 1, status: 'completed' });
      await expectEqual(out, await source.truth(), { machine: source.machine, loads: false });
    }
  });
});
