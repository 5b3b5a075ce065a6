/**
 * One side of a live migration is killed, or told to end, at a random point: the command, the source or the target, with
 * `receive`, `send` and `relay`. Never is there a file that lies, the guest goes on where the command says, and only kill
 * -9 leaves a file.
 *
 * A few points run with `npm run test:qemu`; VMFERRY_QEMU=full runs 200 for each command with 10.0, and some with 7.2.
 * VMFERRY_SEED chooses others.
 */
import { afterAll, describe, expect, test } from 'vitest';
import { type Capture, capture } from './capture.ts';
import { type Point, pointsOf, seeded } from './live-end.ts';
import { type Mode, Play, type Verb } from './live-play.ts';
import type { HarmingProxy, Harms } from './proxy.ts';
import type { QemuVersion } from './qemu.ts';
import { lacksQemu } from './require.ts';

const isFull = process.env.VMFERRY_QEMU === 'full';
const versions: QemuVersion[] = isFull ? ['10.0', '7.2'] : ['10.0'];
const seed = Number(process.env.VMFERRY_SEED ?? 7);

const multifd = { 'multifd-channels': 3, 'multifd-compression': 'zstd' };
const received: Record<string, Mode> = {
  plain: { capabilities: [] },
  'with a return path': { capabilities: ['return-path'], confirms: true },
  multifd: { capabilities: ['multifd', 'return-path'], parameters: multifd, confirms: true },
  postcopy: { capabilities: ['postcopy-ram'], postcopy: true, confirms: true },
  'postcopy-preempt': { capabilities: ['postcopy-ram', 'postcopy-preempt'], postcopy: true, confirms: true },
};
const sent: Record<string, Mode> = {
  plain: { capabilities: [] },
  multifd: { capabilities: [], channels: { count: 3, compression: 'zstd' } },
};

type Victim = 'command' | 'source' | 'target';
/** The side that ends, its signal, and the exit codes that the command may have. Null: it was killed. */
const ends: [Victim, NodeJS.Signals, codes: (number | null)[]][] = [
  ['command', 'SIGKILL', [null, 0]],
  ['source', 'SIGKILL', [3, 0]],
  ['target', 'SIGKILL', [3, 0]],
  ['command', 'SIGTERM', [143, 0]],
  ['command', 'SIGINT', [130, 0]],
  ['command', 'SIGHUP', [129, 0]],
];

const verbs: Record<Verb, { modes: Record<string, Mode>; victims: Victim[] }> = {
  receive: { modes: received, victims: ['command', 'source'] },
  send: { modes: sent, victims: ['command', 'target'] },
  relay: { modes: received, victims: ['command', 'source', 'target'] },
};

const captured = new Map<QemuVersion, Promise<Capture>>();
afterAll(async () => {
  for (const made of captured.values()) (await made).dispose();
});

function fileOf({ verb, version }: Setup): Promise<Capture> | undefined {
  if (verb !== 'send') return undefined;
  const made = captured.get(version) ?? capture({ version, machine: 'bare', route: 'exec' });
  captured.set(version, made);
  return made;
}

interface Setup {
  verb: Verb;
  version: QemuVersion;
  mode: Mode;
}

/** What passes in a migration that nobody ends. */
async function passedOf(setup: Setup): Promise<HarmingProxy['passed']> {
  await using play = await Play.start({ ...setup, made: await fileOf(setup) });
  await play.begin();
  await play.expectTruth(await play.outcome(), [0], 'unharmed');
  return (play.near ?? play.far)?.passed ?? [];
}

/** Migrates once, and ends one side at the point. Returns whether the migration came to that point. */
async function playTo(setup: Setup, point: Point, [victim, signal, codes]: (typeof ends)[number], isFar: boolean) {
  const { verb } = setup;
  let isReached = false;
  let play: Play | undefined;
  const act = () => {
    isReached = true;
    if (victim === 'command') play?.command.kill(signal);
    else play?.[victim]?.child.kill(signal);
  };
  const harms = (connection: number): Harms =>
    connection === point.connection ? { [point.way]: { actAt: point.at, act, pieces: 20_000 } } : {};
  const made = await fileOf(setup);
  const side = isFar || verb === 'send' ? { far: harms } : { near: harms };
  const onStart = (each: Play) => {
    play = each;
  };
  await using started = await Play.start({ ...setup, made, ...side, onStart });
  await started.begin();
  const outcome = await started.outcome();
  // The end of the command may have come from its wait for the next source.
  const all = isReached && victim === 'command' ? codes : [...codes, 3, 130];
  await started.expectTruth(outcome, all, JSON.stringify({ seed, victim, signal, isFar, ...point }));
  return isReached;
}

/** Points of each case: 200 for each command with 10.0. */
function countOf(version: QemuVersion, cases: number): number {
  if (!isFull) return 1;
  return version === '7.2' ? 3 : Math.ceil(200 / cases);
}

const cases = Object.entries(verbs).flatMap(([verb, { modes, victims }]) => {
  const these = ends.filter(([victim]) => victims.includes(victim));
  return versions.flatMap((version) => {
    const count = countOf(version, Object.keys(modes).length * these.length);
    return Object.entries(modes).flatMap(([name, mode], m) =>
      these.map((end, e) => {
        const isEssential = end[1] === 'SIGKILL' && (m + e) % 3 === 1 && name !== 'postcopy-preempt';
        const setup = { verb: verb as Verb, version, mode, end, count, isEssential };
        return [`${verb}, ${name}, ${version}: ${end[1]} to the ${end[0]}`, setup] as const;
      }),
    );
  });
});
const chosen = cases.filter(([, { isEssential }]) => isFull || isEssential);

describe.skipIf(lacksQemu(...versions))('one side ends at any point', () => {
  test.each(chosen)('%s', async (what, { verb, version, mode, end, count }) => {
    const setup = { verb, version, mode };
    const all = await passedOf(setup);
    // What passes on a preempt channel depends on the guest.
    const passed = mode.capabilities.includes('postcopy-preempt') ? all.slice(0, 1) : all;
    const random = seeded(seed + what.length);
    let reached = 0;
    for (const { index, ...point } of pointsOf(passed, count, random)) {
      const isFar = verb === 'relay' && index % 2 === 1;
      // How much the guest writes meanwhile is not the same each time: a point that was not reached is moved forward.
      for (let { at } = point, isReached = false; !isReached && at > 0; at >>= 1) {
        isReached = await playTo(setup, { ...point, at }, end, isFar);
        if (isReached) reached++;
      }
    }
    if (!isFull) return;
    console.log(`${what}: ${reached} of ${count} points, seed ${seed}`);
    expect(reached).toBe(count);
  });
});
