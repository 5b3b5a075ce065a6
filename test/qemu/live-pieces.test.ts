/**
 * Lines that split everything into single bytes, or delay each write, in both directions and on both sides of a relay, over
 * TCP and unix sockets: `receive`, `send` and `relay` do the same as over a good line.
 *
 * Two of them run with `npm run test:qemu`; VMFERRY_QEMU=full runs all.
 */
import { afterAll, describe, expect, test } from 'vitest';
import { type Capture, capture } from './capture.ts';
import { type Mode, Play, type Verb } from './live-play.ts';
import { fillStripes } from './machine.ts';
import type { Harm } from './proxy.ts';
import type { QemuVersion } from './qemu.ts';
import { lacksQemu } from './require.ts';

const isFull = process.env.VMFERRY_QEMU === 'full';

/** Little memory has content, since single bytes take long. */
const filled = { first: 256, count: 24 };
const harms: Record<string, Harm> = {
  'single bytes': { pieces: 1 },
  'each write delayed': { pieces: 10_000, delayMs: 3 },
};
const multifd = { 'multifd-channels': 2, 'multifd-compression': 'zlib' };
const modes: Record<string, Mode> = {
  'with a return path': { capabilities: ['return-path'], confirms: true },
  multifd: { capabilities: ['multifd', 'return-path'], parameters: multifd, confirms: true },
  postcopy: { capabilities: ['postcopy-ram'], postcopy: true, confirms: true },
};
const sent: Record<string, Mode> = {
  plain: { capabilities: [] },
  multifd: { capabilities: [], channels: { count: 2, compression: 'zlib' } },
};

const captured = new Map<QemuVersion, Promise<Capture>>();
afterAll(async () => {
  for (const made of captured.values()) (await made).dispose();
});
function fileOf(version: QemuVersion): Promise<Capture> {
  const fill = (running: Parameters<typeof fillStripes>[0]) => fillStripes(running, filled);
  const made = captured.get(version) ?? capture({ version, machine: 'bare', route: 'exec', fill });
  captured.set(version, made);
  return made;
}

const cases = (['receive', 'send', 'relay'] as Verb[]).flatMap((verb) =>
  (isFull ? (['7.2', '10.0'] as const) : (['10.0'] as const)).flatMap((version) =>
    Object.entries(verb === 'send' ? sent : modes).flatMap(([name, mode]) =>
      (['tcp', 'unix'] as const).flatMap((transport) =>
        Object.entries(harms).map(
          ([how, harm]) =>
            [`${verb}, ${name}, ${transport}, ${version}: ${how}`, { verb, version, mode, transport, harm }] as const,
        ),
      ),
    ),
  ),
);
const essential = ['send, multifd, unix, 10.0: single bytes', 'relay, postcopy, unix, 10.0: each write delayed'];
const chosen = cases.filter(([name]) => isFull || essential.includes(name));

describe.skipIf(lacksQemu('7.2', '10.0'))('a line that splits or delays', () => {
  test.each(chosen)('%s', async (name, { verb, version, mode, transport, harm }) => {
    const both = () => ({ there: harm, back: harm });
    const made = verb === 'send' ? await fileOf(version) : undefined;
    const sides = { ...(verb === 'send' ? {} : { near: both }), ...(verb === 'receive' ? {} : { far: both }) };
    // The guest writes nothing, since single bytes are slower than it is.
    await using play = await Play.start({ verb, version, mode, made, transport, filled, writes: false, ...sides });
    await play.begin();
    const outcome = await play.outcome();
    expect(outcome.end.code, outcome.end.stderr).toBe(0);
    await play.expectTruth(outcome, [0], name);
  });
});
