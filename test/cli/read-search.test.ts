/** `vmferry read` and `vmferry search` as users run them, on real captures. */
import { execFileSync } from 'node:child_process';
import { createReadStream, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { HexDump } from '../../src/words/hex-dump.ts';
import { type Fixture, fixturePath, loadFixtures } from '../fixture-files.ts';
import { hangGuardMs, someOf } from '../limits.ts';
import { runCli } from '../run-cli.ts';
import { StalledInput } from '../stalled-input.ts';

const readable = loadFixtures().filter(({ name }) => !name.includes('compress'));
const path = fixturePath('pc-xbzrle-10.0.bin');
const sentence = 'the ferry leaves at dawn';

let directory = '';
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'vmferry-cli-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

function place({ name, bytes, offset }: Fixture): string {
  const target = join(directory, `${name}.bin`);
  if (!existsSync(target)) writeFileSync(target, bytes);
  return offset === 0 ? target : `${target},offset=${offset}`;
}

/** The options for a fixture's channels, if it has any. */
function placeChannels({ name, channels }: Fixture): string[] {
  return channels.flatMap((bytes, i) => {
    const target = join(directory, `${name}.channel-${i}`);
    if (!existsSync(target)) writeFileSync(target, bytes);
    return ['--channel', target];
  });
}

/** The content of a block, according to `vmferry extract`. */
const extract = async (location: string, block: string, channels: string[] = []) =>
  (await runCli(['extract', location, ...channels, '--block', block, '-o', '-'])).bytes;

function offsetsOf(content: Buffer, pattern: string | Buffer): number[] {
  const offsets: number[] = [];
  for (let at = content.indexOf(pattern); at !== -1; at = content.indexOf(pattern, at + pattern.length))
    offsets.push(at);
  return offsets;
}

describe('read', () => {
  it.each(someOf(readable, 12, 5))(
    'of $name gives the bytes that extract gives, from a file and from a pipe',
    async (fixture) => {
      const location = place(fixture);
      const { idstr, length } = fixture.truth[0] as { idstr: string; length: number };
      const channels = placeChannels(fixture);
      const whole = await extract(location, idstr, channels);
      expect(whole).toHaveLength(length);
      const from = Math.floor(length / 3) + 5;
      const args = [...channels, '--block', idstr, '--at', `${from}`, '--length', '0x5001', '--raw'];
      const expected = whole.subarray(from, from + 0x5001);
      expect(Buffer.compare((await runCli(['read', location, ...args])).bytes, expected)).toBe(0);
      if (fixture.offset !== 0) return;
      expect(Buffer.compare((await runCli(['read', '-', ...args], createReadStream(location))).bytes, expected)).toBe(
        0,
      );
    },
  );

  it('prints the format of hexdump -C', async () => {
    try {
      execFileSync('hexdump', ['-V'], { stdio: 'pipe' });
    } catch {
      console.warn('skipped: hexdump (util-linux) is not installed');
      return;
    }
    const raw = join(directory, 'pc.ram.raw');
    await runCli(['extract', path, '--block', 'pc.ram', '-o', raw]);
    for (const [at, length] of [
      [0, 2 << 20],
      [0x8600, 0x301],
      [0x101ff7, 9],
      [0x1f0000, 0x10000],
      [17, 40],
    ] as const) {
      const { stdout, code } = await runCli(['read', path, '--at', `${at}`, '--length', `${length}`]);
      const expected = execFileSync('hexdump', ['-C', '-s', `${at}`, '-n', `${length}`, raw], { maxBuffer: 1 << 26 });
      expect(stdout).toBe(expected.toString());
      expect(code).toBe(0);
    }
  });

  it('shows 256 bytes of the main block by default', async () => {
    const { stdout, stderr } = await runCli(['read', path]);
    expect(stderr).toBe('');
    expect(stdout).toMatch(/^00000000 {2}/);
    expect(stdout).toMatch(/\n00000100\n$/);
  });

  it('--json has the bytes as hex', async () => {
    const { stdout } = await runCli(['read', path, '--block', 'pc.bios', '--at', '65520', '--json']);
    const whole = await extract(path, 'pc.bios');
    expect(JSON.parse(stdout)).toEqual({
      ...{ jsonVersion: 1, plan: expect.any(Object) },
      block: 'pc.bios',
      at: 65520,
      length: 16,
      absentPages: 0,
      hex: whole.subarray(65520).toString('hex'),
    });
  });

  it('-o writes a file that appears whole or not at all', async () => {
    const folder = mkdtempSync(join(directory, 'out-'));
    const output = join(folder, 'range.bin');
    const { stdout, code } = await runCli(['read', path, '--at', '1M', '--length', '64K', '-o', output]);
    expect([stdout, code]).toEqual(['', 0]);
    expect(readFileSync(output)).toEqual((await extract(path, 'pc.ram')).subarray(1 << 20, (1 << 20) + 65536));
    const cut = join(directory, 'cut.bin');
    writeFileSync(cut, readFileSync(path).subarray(0, 300_000));
    const bad = await runCli(['read', cut, '-o', join(folder, 'bad.bin')]);
    expect(bad.code).toBe(1);
    expect(bad.stderr).toMatch(/\[truncated\]/);
    expect(readdirSync(folder)).toEqual(['range.bin']);
    const self = await runCli(['read', cut, '-o', cut]);
    expect([self.code, self.stderr]).toEqual([2, expect.stringMatching(/an output other than the input/)]);
  });

  it('leaves nothing when interrupted', async () => {
    const folder = mkdtempSync(join(directory, 'out-'));
    const bytes = readFileSync(path);
    const stalled = new StalledInput(bytes.subarray(0, bytes.length - 1));
    const interrupt = { signal: 'SIGINT', once: () => stalled.isTaken } as const;
    const { code } = await runCli(['read', '-', '-o', join(folder, 'x')], stalled, { interrupt });
    expect(code).toBe(130);
    expect(readdirSync(folder)).toEqual([]);
  });
});

describe('search', () => {
  const block = 'pc.ram';
  // The guest of the capture with a core writes no text.
  const written = readable.filter(
    ({ truth, core }) => core === undefined && truth.some(({ idstr }) => idstr === block),
  );
  it.each(someOf(written, 12, 5))('in $name finds what the guest wrote, in a file and in a pipe', async (fixture) => {
    const location = place(fixture);
    const channels = placeChannels(fixture);
    const expected = offsetsOf(await extract(location, block, channels), sentence);
    expect(expected.length).toBeGreaterThan(10);
    const offsets = (stdout: string) =>
      stdout
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line).offset);
    const args = [...channels, sentence, '--block', block, '--json'];
    expect(offsets((await runCli(['search', location, ...args])).stdout)).toEqual(expected);
    const hex = Buffer.from(sentence).toString('hex');
    const wild = [...channels, '--hex', `?${hex.slice(1, 20)} ?? ${hex.slice(22)}`, '--block', block, '--json'];
    expect(offsets((await runCli(['search', location, ...wild])).stdout)).toEqual(expected);
    const regex = [...channels, '--regex', 'THE \\w{5} leaves at (dusk|dawn)', '-i', '--block', block, '--json'];
    expect(offsets((await runCli(['search', location, ...regex])).stdout)).toEqual(expected);
    if (fixture.offset !== 0) return;
    expect(offsets((await runCli(['search', '-', ...args], createReadStream(location))).stdout)).toEqual(expected);
    const counted = await runCli(['search', location, ...channels, sentence, '--block', block, '--count']);
    expect(counted.stdout).toBe(`${expected.length}\n`);
  });

  it('prints a line per match: block, offset, bytes as hex and as ASCII', async () => {
    const { stdout, stderr, code } = await runCli(['search', path, sentence, '--max', '2', '-C', '4']);
    const whole = await extract(path, block);
    const lines = offsetsOf(whole, sentence)
      .slice(0, 2)
      .map((at) => {
        const printable = (from: number, to: number) => whole.toString('latin1', from, to).replace(/[^ -~]/g, '.');
        const bytes = whole
          .subarray(at - 4, at + 16)
          .toString('hex')
          .replace(/..(?!$)/g, '$& ');
        return `pc.ram   0x${at.toString(16).padStart(8, '0')}  ${bytes}  |${printable(at - 4, at + sentence.length)}|`;
      });
    expect(stdout.trimEnd().split('\n')).toEqual(lines);
    expect(stderr).toBe('vmferry: note: stopped at --max 2\n');
    expect(code).toBe(0);
  });

  it('reads patterns from a file, and prints which was found', async () => {
    const patterns = join(directory, 'patterns');
    writeFileSync(patterns, `nowhere to be found\n\n${sentence}\r\nleaves\n`);
    const { stdout } = await runCli(['search', path, '-f', patterns, '--json', '--max', '2', '-C', '2']);
    const [first, second] = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(first).toMatchObject({
      block,
      pattern: 1,
      length: sentence.length,
      before: expect.stringMatching(/^.{4}$/),
    });
    expect(second).toMatchObject({ pattern: 2, offset: first.offset + sentence.indexOf('leaves') });
  });

  it('finds UTF-16 only as UTF-16', async () => {
    const { stdout, stderr, code } = await runCli(['search', path, '--utf16', sentence]);
    expect([stdout, stderr, code]).toEqual(['', 'vmferry: note: no match\n', 1]);
  });

  it('reports a bad file', async () => {
    const cut = join(directory, 'cut-search.bin');
    writeFileSync(cut, readFileSync(path).subarray(0, 300_000));
    for (const more of [[], ['--count']]) {
      const { stdout, stderr, code } = await runCli(['search', cut, sentence, ...more]);
      expect([stdout, code]).toEqual(['', 2]);
      expect(stderr).toMatch(/\[truncated\] in .*cut-search\.bin at 0x/);
    }
  });

  it('reports that a stream without RAM has no such block', async () => {
    const empty = join(directory, 'empty.bin');
    writeFileSync(empty, Buffer.from(`5145564d000000030700000004${Buffer.from('none').toString('hex')}00`, 'hex'));
    const { stderr, code } = await runCli(['search', empty, 'x', '--block', 'ram']);
    expect([stderr, code]).toEqual([expect.stringMatching(/a RAM block in the file \(it has none\), got "ram"/), 2]);
  });

  it('ends quietly when its reader ends', () => {
    const cli = JSON.stringify(join(import.meta.dirname, '../../dist/cli.js'));
    const command = `node ${cli} search ${path} --hex 00 | head -n 1`;
    const out = execFileSync('bash', ['-o', 'pipefail', '-c', command], {
      stdio: 'pipe',
      timeout: hangGuardMs,
    }).toString();
    expect(out).toMatch(/^pc\.ram {3}0x\d{8} {2}00 /);
  });
});

describe('wrong use', () => {
  const cases: [string, string[], RegExp][] = [
    ['no pattern', ['search', path], /expected a PATTERN, or --file PATTERNS/],
    ['a pattern and a file of them', ['search', path, 'x', '-f', 'y'], /expected PATTERN or --file, got both/],
    ['an empty pattern', ['search', path, ''], /at least one byte/],
    ['several kinds', ['search', path, '--hex', '--regex', '00'], /expected one of --hex, --regex and --utf16/],
    ['hex that is none', ['search', path, '--hex', '0g'], /expected pairs of hex digits or \?, .* got "0g"/],
    ['an expression that is none', ['search', path, '--regex', '('], /Invalid regular expression/],
    ['case of hex', ['search', path, '--hex', '-i', '00'], /expected --ignore-case with text or --regex/],
    ['a count and a limit', ['search', path, 'x', '--count', '--max', '1'], /expected either --count or --max/],
    ['no count', ['search', path, 'x', '--max', '0'], /expected a count of at least 1, got "0"/],
    ['too much context', ['search', path, 'x', '-C', '4K'], /expected 0 to 4096 bytes of context, got 4112/],
    ['a missing block', ['search', path, 'x', '--block', 'ram'], /expected a RAM block in the file \(pc\.ram/],
    ['an offset that is none', ['read', path, '--at', '1x'], /expected a number of bytes .*, got "1x"/],
    [
      'an offset beyond the block',
      ['read', path, '--at', '2M'],
      /within pc\.ram, which has 2097152 \(0x200000\) bytes/,
    ],
    ['a range beyond the block', ['read', path, '--at', '1M', '--length', '1025K'], /got 1049600 .* at 1048576/],
    ['another block', ['read', path, '--block', 'ram'], /pc\.ram of 2097152 .*, got "ram"/],
    ['two forms', ['read', path, '--json', '--raw'], /expected either --json or the bytes/],
    ['two outputs', ['read', path, '--raw', '-o', 'x'], /expected either --raw, to standard output, or -o OUT/],
  ];
  it.each(cases)('%s exits with 2 and says what is wrong', async (_, args, message) => {
    const { stdout, stderr, code } = await runCli(args);
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/\n +at /);
    expect([stdout, code]).toEqual(['', 2]);
  });

  it.each(['read', 'search'])('%s --help has examples', async (command) => {
    const { stdout, code } = await runCli([command, '--help']);
    expect(code).toBe(0);
    expect(stdout).toMatch(/Examples:\n {2}vmferry /);
  });
});

it('a hex dump is the same, in whatever pieces the bytes come', () => {
  const bytes = new Uint8Array(1000);
  bytes.set([1, 2, 3], 100);
  bytes.set([4], 700);
  const whole = new HexDump(0xfffffff0, 0xfffffff0 + 1000);
  const expected = whole.bytes(bytes) + whole.end();
  const pieces = new HexDump(0xfffffff0, 0xfffffff0 + 1000);
  let text = pieces.zeros(100) + pieces.bytes(bytes.subarray(100, 103)) + pieces.zeros(597);
  for (const byte of bytes.subarray(700, 777)) text += pieces.bytes(Uint8Array.of(byte));
  text += pieces.zeros(223) + pieces.end();
  expect(text).toBe(expected);
  expect(text.split('\n')[0]).toBe(`0fffffff0${'  00 00 00 00 00 00 00 00'.repeat(2)}  |${'.'.repeat(16)}|`);
  expect(text.split('\n').at(-2)).toBe('1000003d8');
});
