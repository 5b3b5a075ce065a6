/**
 * The line breaks in every moment of a live migration: `receive`, `send` and `relay`, on either side of a relay, in good
 * order or not. Wherever that is, what the command says of the guest is true, and no file lies.
 *
 *     setup ─ first pass ─ later pass ─ device state ─ description ─ end ─→
 *                                                        ←─ before SHUT ─ in SHUT ─ after SHUT
 *     in postcopy:        first pass ─ discards ─ package ─ pages ─ end ─→
 *     on a channel:       its first bytes ─ its pages ─ its end ─→
 *
 * The moments that tell most run with `npm run test:qemu`; VMFERRY_QEMU=full runs all.
 */
import { afterAll, describe, expect, test } from 'vitest';
import { type Capture, capture } from './capture.ts';
import { errorLine, type Point } from './live-end.ts';
import { type Mode, Play, type Verb } from './live-play.ts';
import type { Harm, HarmingProxy, Harms } from './proxy.ts';
import type { QemuVersion } from './qemu.ts';
import { lacksQemu } from './require.ts';
import { waitUntil } from './wait-until.ts';

const isFull = process.env.VMFERRY_QEMU === 'full';
const versions: QemuVersion[] = isFull ? ['7.2', '10.0'] : ['10.0'];

const multifd = { 'multifd-channels': 2, 'multifd-compression': 'zstd' };
const modes: Record<string, Mode> = {
  plain: { capabilities: [] },
  'with a return path': { capabilities: ['return-path'], confirms: true },
  multifd: { capabilities: ['multifd', 'return-path'], parameters: multifd, confirms: true },
  postcopy: { capabilities: ['postcopy-ram'], postcopy: true, confirms: true },
};
const sent: Record<string, Mode> = {
  plain: { capabilities: [] },
  multifd: { capabilities: [], channels: { count: 2, compression: 'zstd' } },
};
type Side = 'near' | 'far';
const sides: Record<Verb, Side[]> = { receive: ['near'], send: ['far'], relay: ['near', 'far'] };

const captured = new Map<QemuVersion, Promise<Capture>>();
afterAll(async () => {
  for (const made of captured.values()) (await made).dispose();
});

interface Setup {
  verb: Verb;
  version: QemuVersion;
  mode: Mode;
}

/** A migration of a guest that writes nothing, so that the same passes each time. */
async function startPlay(setup: Setup, side: Side, harms: (connection: number) => Harms): Promise<Play> {
  const { verb, version } = setup;
  let made: Promise<Capture> | undefined;
  if (verb === 'send') {
    made = captured.get(version) ?? capture({ version, machine: 'bare', route: 'exec' });
    captured.set(version, made);
  }
  return Play.start({ ...setup, made: await made, [side]: harms, writes: false });
}

/** A moment, and whether the target could not have started the guest by then. */
type Moment = Point & { name: string; isEarly?: boolean };

/** Finds the moments in what passed: `main` is what the source sent on its main connection. */
function momentsOf(main: Buffer, passed: HarmingProxy['passed'], isPostcopy: boolean): Moment[] {
  const middle = (from: number, to: number) => (from + to) >> 1;
  const start = main.indexOf('\x03ram');
  const devices = main.indexOf('\x0acpu_common');
  const there: [string, number, isEarly?: boolean][] = [
    ['setup', start + 30, true],
    ['first pass', middle(start + 200, isPostcopy ? main.indexOf(Buffer.from([8, 0, 6])) : devices), true],
  ];
  if (isPostcopy) {
    const discards = main.indexOf(Buffer.from([8, 0, 6]));
    there.push(['discards', discards + 4], ['the package', middle(devices, devices + 2000)]);
    there.push(['pages of postcopy', middle(devices + 10_000, main.length)]);
  } else {
    // 7.2 begins it with the size of a page.
    const description = Math.max(main.lastIndexOf('{"configuration"'), main.lastIndexOf('{"page_size"'));
    there.push(['device state', middle(devices, description), true]);
    there.push(['right before the end', description - 6, true], ['description', middle(description, main.length)]);
  }
  there.push(['all but the last byte', main.length - 1], ['the end', main.length]);
  const moments: Moment[] = there.map(([name, at, isEarly = false]) => ({
    ...{ name, connection: 0, way: 'there', at, isEarly },
  }));
  const back = passed[0]?.back ?? 0;
  if (back > 0) {
    for (const [name, at] of Object.entries({ 'before SHUT': back - 8, 'in SHUT': back - 3, 'after SHUT': back })) {
      moments.push({ name, connection: 0, way: 'back', at });
    }
  }
  const channel = passed[1]?.there;
  if (channel !== undefined) {
    for (const [name, at] of Object.entries({ hello: 4, pages: channel >> 1, end: channel - 1 })) {
      moments.push({ name: `${name} of a channel`, connection: 1, way: 'there', at });
    }
  }
  for (const { name, at } of moments) expect(at, name).toBeGreaterThan(0);
  return moments;
}

/** What passes in a migration that nobody breaks, and its moments. */
async function look(setup: Setup): Promise<Moment[]> {
  const main: Uint8Array[] = [];
  const side = sides[setup.verb][0] as Side;
  await using play = await startPlay(setup, side, (connection) =>
    connection === 0 ? { there: { see: (bytes) => main.push(bytes) } } : {},
  );
  await play.begin();
  await play.expectTruth(await play.outcome(), [0], 'unharmed');
  return momentsOf(Buffer.concat(main), play[side]?.passed ?? [], setup.mode.postcopy === true);
}

/** Breaks the line in one moment. */
async function breakAt(setup: Setup, side: Side, moment: Moment, cut: 'reset' | 'end'): Promise<void> {
  const { connection, way, at, name } = moment;
  const harm: Harm = { cutAt: at, cut };
  await using play = await startPlay(setup, side, (each) => (each === connection ? { [way]: harm } : {}));
  await play.begin();
  const outcome = await play.outcome();
  const what = JSON.stringify({ name, side, cut, connection, way, at });
  // A target can have the guest while the stream ends too early for the file of --tee.
  await play.expectTruth(outcome, setup.verb === 'relay' ? [0, 2, 3, 130] : [0, 3, 130], what);
  // What is known for certain is said.
  const isCertain = moment.isEarly === true && side === (setup.verb === 'send' ? 'far' : 'near');
  if (!isCertain || setup.mode.confirms !== true || setup.mode.postcopy === true) return;
  expect(errorLine(outcome.end.stderr).guest, what).toBe('source');
}

/**
 * Whether an end in good order can be told from that of a peer that has done its part. Around the last word nobody can, nor
 * a relay whose target takes everything and closes, if there is no return path.
 */
function canTell({ verb, mode }: Setup, side: Side, { way, name }: Moment): boolean {
  if (way === 'back' || name === 'the end') return false;
  return verb !== 'relay' || side === 'near' || mode.confirms === true;
}

/** Breaks the line in a pass after the first: the guest writes faster than it may be sent. */
async function breakInLaterPass(setup: Setup, side: Side): Promise<void> {
  const parameters = { ...setup.mode.parameters, 'max-bandwidth': 1 << 20, 'downtime-limit': 1 };
  const ballast = { first: 280, count: 200 };
  await using play = await Play.start({ ...setup, mode: { ...setup.mode, parameters }, ballast });
  await play.source?.execute('migrate', { uri: play.near?.uri });
  const passes = async () => (await play.source?.queryMigrate())?.ram?.['dirty-sync-count'] ?? 0;
  await waitUntil('the second pass', async () => (await passes()) >= 2);
  play[side]?.cut();
  await play.expectTruth(await play.outcome(), [3, 130], `a later pass, ${side}`);
}

const cases = Object.entries(sides).flatMap(([name, of]) => {
  const verb = name as Verb;
  return versions.flatMap((version) =>
    Object.entries(verb === 'send' ? sent : modes).map(
      ([what, mode]) => [`${verb}, ${what}, ${version}`, { verb, version, mode }, of] as const,
    ),
  );
});
/** What the essential subset plays: nothing but the moments at which the guest changes hands. */
const essential = ['right before the end', 'before SHUT', 'the package'];
const chosen = isFull ? cases : cases.filter(([name]) => /return path|^relay, postcopy|^send, plain/.test(name));

describe.skipIf(lacksQemu(...versions))('the line breaks in every moment', () => {
  test.each(chosen)('%s', async (name, setup, of) => {
    const moments = await look(setup);
    const these = isFull ? moments : moments.filter((moment) => essential.includes(moment.name));
    let count = 0;
    for (const moment of these) {
      for (const side of isFull ? of : of.slice(-1)) {
        await breakAt(setup, side, moment, 'reset');
        count++;
        if (!isFull || !canTell(setup, side, moment)) continue;
        await breakAt(setup, side, moment, 'end');
        count++;
      }
    }
    const hasPasses = setup.verb !== 'send' && setup.mode.postcopy !== true;
    for (const side of isFull && hasPasses ? of : []) {
      await breakInLaterPass(setup, side);
      count++;
    }
    if (isFull) console.log(`${name}: ${count} breaks`);
    expect(count).toBeGreaterThan(0);
  });
});
