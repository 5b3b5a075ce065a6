/**
 * A session takes anything: transcripts that were damaged, noise, and messages larger than any limit. It never throws, it
 * answers the next good command, and what it keeps is bounded. Seeded: each run has the same inputs.
 */
import { describe, expect, it } from 'vitest';
import { qemuLimits } from '../../src/qmp/json-parser.ts';
import { moreCases } from '../limits.ts';
import { brokenTexts, numbers } from './broken-json.ts';
import { settingsServer } from './settings-server.ts';
import { readTranscript, transcriptNames } from './transcript.ts';

const encode = (text: string) => new TextEncoder().encode(text);

/** A session, and what it answered since it was last asked. */
function open() {
  const lines: string[] = [];
  // Handlers without an engine are reached by good arguments.
  const session = settingsServer('9.0', { 'query-name': () => ({ name: 'alive' }) }).connect((text) => {
    lines.push(text);
  });
  return { session, taken: () => lines.splice(0) };
}

/** Ends whatever was begun, and sees that a good command is answered. */
async function expectAlive({ session, taken }: ReturnType<typeof open>): Promise<void> {
  taken();
  await session.receive(new Uint8Array([0xff, 0x0a]));
  await session.receive(encode('{"execute": "qmp_capabilities"}\n{"execute": "query-name", "id": "alive"}\n'));
  expect(taken().at(-1)).toBe('{"return": {"name": "alive"}, "id": "alive"}\r\n');
}

const seeds = Array.from({ length: moreCases ? 40 : 4 }, (_, i) => i + 1);

describe('a session survives', () => {
  const steps = transcriptNames().flatMap((name) => readTranscript(name).map(({ text }) => text));

  it.each(seeds)('damaged transcripts, seed %d', async (seed) => {
    const next = numbers(seed);
    const below = (limit: number) => Math.floor(next() * limit);
    const opened = open();
    for (let round = 0; round < 400; round++) {
      const bytes = Buffer.from(`${steps[below(steps.length)]}\n`);
      for (let n = below(4); n > 0; n--) bytes[below(bytes.length)] = below(256);
      const from = next() < 0.2 ? below(bytes.length) : 0;
      const damaged = bytes.subarray(from, next() < 0.2 ? from + below(bytes.length) : undefined);
      const at = below(damaged.length + 1);
      await opened.session.receive(damaged.subarray(0, at));
      await opened.session.receive(damaged.subarray(at));
      if (round % 20 === 0) await expectAlive(opened);
    }
    await expectAlive(opened);
  });

  it.each(seeds)('noise, seed %d', async (seed) => {
    const next = numbers(seed);
    const opened = open();
    for (let round = 0; round < 100; round++) {
      const bytes = Uint8Array.from({ length: Math.floor(next() * 2000) }, () => Math.floor(next() * 256));
      await opened.session.receive(bytes);
    }
    await expectAlive(opened);
  });

  it('texts that are nearly JSON', async () => {
    const opened = open();
    for (const text of brokenTexts(moreCases ? 5000 : 500)) await opened.session.receive(text);
    await expectAlive(opened);
  });

  it.each([
    ['a string without an end', '"', 'x'.repeat(1 << 20), 'JSON token size limit exceeded'],
    ['a number without an end', '1', '1'.repeat(1 << 20), 'JSON token size limit exceeded'],
    ['a word without an end', 'a', 'a'.repeat(1 << 20), 'JSON token size limit exceeded'],
    ['brackets that only open', '', '['.repeat(1 << 20), 'JSON nesting depth limit exceeded'],
    ['an array without an end', '[', '1,'.repeat(1 << 20), 'JSON token count limit exceeded'],
    ['strings without an end', '[', `"${'x'.repeat((1 << 20) - 3)}",`, 'JSON token size limit exceeded'],
  ])('%s', async (_, begin, piece, error) => {
    const opened = open();
    opened.taken();
    await opened.session.receive(encode(begin));
    const bytes = encode(piece);
    const before = process.memoryUsage();
    let most = 0;
    for (let sent = 0; sent < 3 * qemuLimits.bytes; sent += bytes.length) {
      await opened.session.receive(bytes);
      const { heapUsed, arrayBuffers } = process.memoryUsage();
      most = Math.max(most, heapUsed + arrayBuffers - before.heapUsed - before.arrayBuffers);
      const answers = opened.taken();
      if (answers.length === 0) continue;
      expect(answers[0]).toContain(error);
      break;
    }
    expect(opened.taken()).toEqual([]);
    // A token of 64 MiB in a buffer that doubles, or 2 Mi tokens; as much again that is not collected yet.
    expect(most).toBeLessThan(6 * qemuLimits.bytes);
    await expectAlive(opened);
  });

  it('a long text of NULs in two bytes', async () => {
    const opened = open();
    await opened.session.receive(encode('{"execute": "qmp_capabilities"}'));
    const text = Buffer.concat([encode('{"id": "'), Buffer.alloc(400_000, Buffer.from([0xc0, 0x80])), encode('"}')]);
    await opened.session.receive(text);
    expect(opened.taken().at(-1)).toContain('\\u0000\\u0000');
  });
});
