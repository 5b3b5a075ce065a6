/** `vmferry resume --serve` and `send --postcopy` into `vmferry receive`, and where there is nobody to serve. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { fixturePath } from '../../fixture-files.ts';
import { LiveCommand } from '../../qemu/live-command.ts';
import { runCli } from '../../run-cli.ts';

let dir = '';
let mapped = '';
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'vmferry-serve-'));
  mapped = join(dir, 'guest.mapped-ram');
  writeFileSync(mapped, gunzipSync(readFileSync(fixturePath('pc-mapped-ram-multifd-10.0.bin.gz'))));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const plain = fixturePath('pc-plain-10.0.bin');

/** What a command says at its end, with --json. */
const errorOf = ({ stderr }: { stderr: string }) => JSON.parse(stderr.trim().split('\n').at(-1) as string).error;

async function isSame(file: string, out: string): Promise<boolean> {
  const { stdout } = await runCli(['diff', file, out, '--json']);
  return JSON.parse(stdout).same;
}

describe('a guest is served to receive', () => {
  it.each([
    ['from a mapped-ram file, with preempt', () => mapped, ['--postcopy-preempt']],
    ['from a stream', () => plain, []],
  ] as const)('%s', async (_, file, more) => {
    const [out, order] = [join(dir, 'out.mapped-ram'), join(dir, 'order')];
    await using target = new LiveCommand(['receive', `unix:${join(dir, 'line')}`, out]);
    const args = ['resume', file(), '--serve', await target.uri(), '--json', '--record', order, ...more];
    const { code, stdout, stderr } = await runCli(args);
    expect([code, stderr]).toEqual([0, '']);
    const events = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(events[0]).toMatchObject({ jsonVersion: 1, event: 'running', source: file(), faults: 0 });
    expect(events.at(-1)).toMatchObject({ event: 'complete', faults: 0, latency: { p50: 0, histogram: [] } });
    expect((await target.ended).code).toBe(0);
    expect(await isSame(file(), out)).toBe(true);
    expect(readFileSync(order, 'utf8')).toBe('# vmferry page order 1\n');
  });

  it('by send --postcopy', async () => {
    const out = join(dir, 'out.mapped-ram');
    await using target = new LiveCommand(['receive', `unix:${join(dir, 'line')}`, out]);
    const { code, stdout, stderr } = await runCli(['send', mapped, await target.uri(), '--postcopy']);
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(/: sent to .*the target has the guest\n$/);
    expect((await target.ended).code).toBe(0);
    expect(await isSame(mapped, out)).toBe(true);
  });
});

describe('nobody is served', () => {
  it('where nobody listens: the guest is in its file, or, in a recovery, split', async () => {
    const uri = `unix:${join(dir, 'nobody')}`;
    const served = await runCli(['resume', mapped, '--serve', uri, '--json']);
    expect([served.code, errorOf(served)]).toMatchObject([3, { guest: 'source' }]);
    const again = await runCli(['resume', mapped, '--serve', uri, '--recover', '--json']);
    expect([again.code, errorOf(again)]).toMatchObject([
      3,
      { guest: 'split', hint: expect.stringContaining('--serve URI --recover') },
    ]);
  });

  it('from a file that is not whole', async () => {
    const cut = join(dir, 'cut');
    writeFileSync(cut, readFileSync(plain).subarray(0, 100_000));
    const out = join(dir, 'none');
    await using target = new LiveCommand(['receive', `unix:${join(dir, 'line')}`, out]);
    const { code, stderr } = await runCli(['resume', cut, '--serve', await target.uri(), '--json']);
    expect([code, errorOf({ stderr })]).toMatchObject([1, { guest: 'source' }]);
    expect(existsSync(out)).toBe(false);
  });

  const nobody = 'unix:nobody';
  it.each([
    [['--serve', 'exec:cat'], 'Unable to open return-path for postcopy'],
    [['--serve', 'fd:3', '--postcopy-preempt'], 'Migration requires multi-channel URIs (e.g. tcp)'],
    [
      ['--serve', 'listen:tcp::0', '--tls-creds', 'tls0', '--tls-hostname', 'x'],
      '--tls-hostname cannot be used with listen:',
    ],
    [['--serve', nobody, '--tls-creds', 'tls0', '--tls-authz', 'who'], '--tls-authz goes with listen:'],
    [['--serve', nobody, '--map'], '--serve cannot be used with --map'],
    [['--recover'], '--recover goes with --serve'],
    [['--serve', nobody, '--order', plain], 'expected "# vmferry page order 1" in line 1 of the order'],
    [['--serve', nobody, '--cache', 'copy'], '--cache goes with a file on a server'],
    [['--serve', nobody, 'qemu-system-x86_64'], 'a QEMU command goes with --map'],
  ])('with %j', async (args, message) => {
    const { code, stderr } = await runCli(['resume', mapped, ...args, '--json']);
    expect([code, errorOf({ stderr })]).toMatchObject([
      2,
      { guest: 'source', message: expect.stringContaining(message) },
    ]);
  });
});
