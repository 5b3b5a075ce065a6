/** `inspect --devices`, `inspect --device` and `extract --device` as users run them. */
import { execFileSync } from 'node:child_process';
import { createReadStream, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join as joinPath } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { virtioBody } from '../devices/virtio.ts';
import { fixturePath } from '../fixture-files.ts';
import { EOF, full, join, none, ramEnd, ramStart, u32, vmdescription } from '../oracle/build.ts';
import { expectPeakMemory, runCli } from '../run-cli.ts';

const pc = fixturePath('pc-plain-10.0.bin');

let directory = '';
beforeAll(() => {
  directory = mkdtempSync(joinPath(tmpdir(), 'vmferry-cli-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

function place(name: string, bytes: Uint8Array): string {
  const path = joinPath(directory, name);
  writeFileSync(path, bytes);
  return path;
}

/** Devices with their bodies and fields as a file. */
function placeDevices(
  name: string,
  devices: { name: string; vmsd: string; fields: object[]; body: Uint8Array }[],
): string {
  const described = devices.map((each) => {
    return { name: each.name, instance_id: 0, vmsd_name: each.vmsd, version: 1, fields: each.fields };
  });
  const sections = devices.map((each, i) => full(i + 2, each.name, each.body));
  return place(name, join(none, ramStart, ramEnd, ...sections, EOF, vmdescription({ devices: described })));
}

const queue = { size: 64, desc: 0x200000n, avail: 0x210000n, used: 0x220000n, last: 7, vector: 1 };
const netBody = virtioBody({ queues: [queue, { ...queue, desc: 0n }], own: new Uint8Array(545) });
const virtio = [{ name: 'virtio', type: 'virtio', size: netBody.length }];
const plainField = [{ name: 'a', type: 'uint8', size: 1 }];

const machine = () =>
  placeDevices('machine', [
    { name: '0000:00:03.0/virtio-net', vmsd: 'virtio-net', fields: virtio, body: netBody },
    { name: '0000:00:04.0/odd', vmsd: 'odd', fields: [{ name: 'x', type: 'secret', size: 3 }], body: join([1, 2, 3]) },
    { name: '0000:00:05.0/odd', vmsd: 'odd', fields: plainField, body: join([1]) },
    { name: 'odd', vmsd: 'odd', fields: plainField, body: join([9]) },
    { name: 'bad', vmsd: 'bad', fields: [{ name: 'p', type: 'nullptr', size: 1 }], body: join([9]) },
  ]);

describe('the list of devices', () => {
  it('says what is to be said of each, and how much is not decoded', async () => {
    const { stdout, stderr, code } = await runCli(['inspect', '--devices', pc]);
    expect({ stderr, code }).toEqual({ stderr: '', code: 0 });
    expect(stdout).toContain('28 devices, undecoded 0 of 9,584 bytes (0 %)');
    expect(stdout).toMatch(/ globalstate +0 +1 +runstate running$/m);
    expect(stdout).toMatch(/ cpu +0 +12 +rip 0x[0-9a-f]+, (16|32|64)-bit( real)?, CPL 0, (not )?halted$/m);
    expect(stdout).toMatch(/ timer +0 +2 +virtual clock \d+\.\d{3} s$/m);
    expect(stdout).toMatch(/ 0000:00:01\.0\/PIIX3 .*PCI 8086:7000/);
    expect(stdout).toMatch(/ mc146818rtc .*\d of \d timers? armed$/m);
  });

  it('names virtio devices by their kind, and says what is not decoded, and why', async () => {
    const { stdout, code } = await runCli(['inspect', '--devices', machine()]);
    expect(stdout).toContain('5 devices, undecoded 4 of ');
    expect(stdout).toMatch(/virtio-net .*virtio network, 2 queues, 1 set up, driver ok, PCI 1af4:1041$/m);
    expect(stdout).toMatch(/ bad .*not decoded: expected 0x30 for a NULL pointer in field p, got 0x9/);
    expect(code).toBe(0);
  });

  it('is the same as JSON, from a pipe, too', async () => {
    const { stdout } = await runCli(['inspect', '--devices', '--json', '-'], createReadStream(pc));
    const list = JSON.parse(stdout);
    expect(list).toMatchObject({
      machine: 'pc-i440fx-10.0',
      bytes: 9584,
      undecodedBytes: 0,
      findings: [],
      error: null,
    });
    expect(list.devices).toHaveLength(28);
    expect(list.devices.at(-1)).toMatchObject({ name: 'globalstate', problem: null, about: ['runstate running'] });
  });

  it('of a file that breaks off is as long as the file goes, and the exit code 1', async () => {
    const bytes = readFileSync(pc);
    const cut = place('cut', bytes.subarray(0, bytes.indexOf('globalstate') - 3));
    const shown = await runCli(['inspect', '--devices', cut]);
    expect(shown.code).toBe(1);
    expect(shown.stdout).toContain('26 devices');
    expect(shown.stdout).toMatch(/error truncated: /);
    const { code, stdout } = await runCli(['inspect', '--devices', '--json', cut]);
    expect({ code, error: JSON.parse(stdout).error.code }).toEqual({ code: 1, error: 'truncated' });
  });
});

describe('one device', () => {
  it('of an x86 CPU begins with its registers', async () => {
    const { stdout, stderr, code } = await runCli(['inspect', '--device', 'cpu', pc]);
    expect({ stderr, code }).toEqual({ stderr: '', code: 0 });
    expect(stdout).toMatch(/^cpu#0, version 12, [\d,]+ bytes at 0x[0-9a-f]+\n/);
    expect(stdout).toMatch(/^ {2}rip {4}[0-9a-f]{16} {2}rflags [0-9a-f]{16}$/m);
    expect(stdout).toMatch(/^ {2}0x[0-9a-f]+ {2}env\.eip {2}\d+/m);
    expect(stdout).toMatch(/^ {2}0x[0-9a-f]+ {2}\/cpu\/poll_control_msr$/m);
  });

  it('has the offset of each value in the file', async () => {
    const { stdout } = await runCli(['inspect', '--device', 'globalstate', pc]);
    const [, offset] = /(0x[0-9a-f]+) {2}runstate {2}"running", 32 bytes/.exec(stdout) ?? [];
    expect(readFileSync(pc).subarray(Number(offset)).subarray(0, 8)).toEqual(Buffer.from('running\0'));
  });

  it('of virtio begins with its queues, and squashes what is the same', async () => {
    const { stdout } = await runCli(['inspect', '--device', 'virtio-net', machine()]);
    expect(stdout).toContain('virtio network, acknowledge, driver, features ok, driver ok, features 0x100000000');
    expect(stdout).toMatch(/^ +0 +64 +0x200000 +0x210000 +0x220000 +7 +1$/m);
    expect(stdout).toMatch(/vqs\[1\.\.1023\] {2}as \[0\]$/m);
    expect(stdout.split('\n').length).toBeLessThan(120);
  });

  it('as JSON has its values and registers', async () => {
    const { stdout } = await runCli(['inspect', '--device', 'cpu#0', '--json', pc]);
    const { name, state, registers } = JSON.parse(stdout);
    const ip = state.fields.find((field: { name: string }) => field.name === 'env.eip').value;
    expect({ name, rip: registers.rip }).toEqual({ name: 'cpu', rip: `0x${BigInt(ip).toString(16)}` });
  });

  it('that is not decoded is a dump, with the reason', async () => {
    const { stdout, code } = await runCli(['inspect', '--device', 'bad', machine()]);
    expect(code).toBe(0);
    expect(stdout).toMatch(/not decoded: expected 0x30 for a NULL pointer/);
    expect(stdout).toMatch(/[0-9a-f]{8} {2}09 +\|\.\|/);
  });

  it.each([
    ['nothing', /expected a device in the file \(0000:00:03\.0\/virtio-net#0, .*, bad#0\), got "nothing"/],
    ['odd#7', /expected a device in the file .* got "odd#7"/],
    ['dd', /expected a device in the file/],
  ])('%s is not there: a usage error that lists what is', async (name, message) => {
    const { stderr, stdout, code } = await runCli(['inspect', '--device', name, machine()]);
    expect({ stdout, code }).toEqual({ stdout: '', code: 2 });
    expect(stderr).toMatch(message);
  });

  it('is found by its whole name first, and by the end of it only if that is one', async () => {
    const path = machine();
    expect((await runCli(['inspect', '--device', 'odd', path])).stdout).toMatch(/^odd#0, /);
    expect((await runCli(['inspect', '--device', 'virtio-net#0', path])).stdout).toMatch(
      /^0000:00:03\.0\/virtio-net#0/,
    );
    const several = placeDevices(
      'several',
      ['0000:00:04.0/odd', '0000:00:05.0/odd'].map((name) => ({
        name,
        vmsd: 'odd',
        fields: plainField,
        body: join([1]),
      })),
    );
    const { stderr, code } = await runCli(['inspect', '--device', 'odd', several]);
    expect(code).toBe(2);
    expect(stderr).toContain('got "odd", which may be 0000:00:04.0/odd#0 or 0000:00:05.0/odd#0');
  });

  it('prints no control characters of a file', async () => {
    const fields = [{ name: 'a\u001b[31m', type: 'uint8', size: 1 }];
    const path = placeDevices('escapes', [{ name: 'x\u0007', vmsd: 'v', fields, body: join([1]) }]);
    for (const args of [['--devices'], ['--device', 'x\u0007']]) {
      const { stdout } = await runCli(['inspect', ...args, path]);
      expect(stdout).toContain('\\x07');
      expect(['\u0007', '\u001b'].filter((char) => stdout.includes(char))).toEqual([]);
    }
  });
});

describe('extract --device', () => {
  it('writes the device as JSON, to a file and to standard output', async () => {
    const out = joinPath(directory, 'cpu.json');
    const { stdout, code } = await runCli(['extract', pc, '--device', 'cpu', '-o', out]);
    expect({ stdout, code }).toEqual({ stdout: `${out}: cpu#0\n`, code: 0 });
    const piped = await runCli(['extract', pc, '--device', 'cpu', '-o', '-']);
    expect(piped.stdout).toBe(readFileSync(out, 'utf8'));
    expect(JSON.parse(piped.stdout)).toMatchObject({ name: 'cpu', versionId: 12, undecodedBytes: 0 });
  });

  it('writes into a FIFO as it is', async () => {
    const fifo = joinPath(directory, 'fifo');
    execFileSync('mkfifo', [fifo]);
    const reader = createReadStream(fifo);
    const text = (async () => {
      let all = '';
      for await (const chunk of reader) all += chunk;
      return all;
    })();
    expect((await runCli(['extract', pc, '--device', 'timer', '-o', fifo])).code).toBe(0);
    expect(JSON.parse(await text).name).toBe('timer');
  });

  it('writes nothing of a bad file', async () => {
    const bytes = readFileSync(pc);
    const cut = place('cut', bytes.subarray(0, bytes.indexOf('globalstate') - 3));
    const out = joinPath(directory, 'none.json');
    expect((await runCli(['extract', cut, '--device', 'timer', '-o', out])).code).toBe(1);
    expect(existsSync(out)).toBe(false);
  });

  it.each([
    ['a block as well', ['--device', 'cpu', '--block', 'pc.ram', '-o', 'x'], /got --block and --device/],
    ['no place', ['--device', 'cpu'], /expected -o OUT/],
    ['another device', ['--device', 'nothing', '-o', 'x'], /expected a device in the file/],
  ])('refuses %s', async (_, args, message) => {
    const { code, stderr } = await runCli(['extract', pc, ...args], undefined, { cwd: directory });
    expect(code).toBe(2);
    expect(stderr).toMatch(message);
    expect(existsSync(joinPath(directory, 'x'))).toBe(false);
  });
});

describe('a hostile description', () => {
  const size = 32 * 1024 * 1024 - 64;
  const described = (text: string) => join(none, ramStart, ramEnd, EOF, [6], u32(text.length), text);

  it.each([
    ['lists', `{"devices":[${'[],'.repeat(size / 3)}[]]}`],
    ['fields', `{"devices":[{"fields":[${'{},'.repeat(size / 3)}{}]}]}`],
    ['escapes', `{"a":"${'\\n'.repeat(size / 2)}"}`],
  ])('of 32 MiB of %s takes less than 200 MiB', async (name, text) => {
    const path = place(name, described(text));
    const result = await runCli(['inspect', '--devices', path], undefined, { alone: true });
    rmSync(path);
    expect(result.code).toBe(0);
    expectPeakMemory(result, 200 * 1024 * 1024);
  });
});
