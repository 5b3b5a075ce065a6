/** `vmferry resume --map` as a user runs it, with a script in place of QEMU. */
import { createHash } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createMappedFile, createStateFile } from '../../../src/cli/vm/state-file.ts';
import { fixturePath } from '../../fixture-files.ts';
import { LiveCommand } from '../../qemu/live-command.ts';
import { runCli } from '../../run-cli.ts';

let dir = '';
let file = '';
let qemu = '';
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'vmferry-resume-'));
  file = join(dir, 'guest.mapped-ram');
  writeFileSync(file, gunzipSync(readFileSync(fixturePath('pc-mapped-ram-multifd-10.0.bin.gz'))));
  qemu = script(
    'qemu',
    'printf "%s\\n" "$@" > "$0.args"; cat <&3 > "$0.stream"; echo started >&2; read word; exit $word',
  );
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

/** A program in place of QEMU. */
function script(name: string, text: string): string {
  const path = join(dir, name);
  writeFileSync(path, `#!/bin/sh\n${text}\n`);
  chmodSync(path, 0o755);
  return path;
}

const digest = () => createHash('sha256').update(readFileSync(file)).digest('hex');
const lines = (path: string) => readFileSync(path, 'utf8').trimEnd().split('\n');
const fits = ['-M', 'pc', '-m', '2'];

describe('--stream', () => {
  it('writes the small stream, and prints only the arguments', async () => {
    const small = join(dir, "it's small");
    const before = digest();
    const { code, stdout, stderr } = await runCli(['resume', file, '--map', '--stream', small]);
    expect([code, stdout]).toEqual([
      0,
      `-object memory-backend-file,id=pc.ram,mem-path=${file},offset=1048576,size=2097152,share=off,readonly=on,rom=off ` +
        `-machine memory-backend=pc.ram -incoming 'file:${dir}/it'\\''s small'\n`,
    ]);
    expect(stderr).toMatch(/^vmferry: note: QEMU 8.2 and later can run on .*Nothing may change /m);
    expect(digest()).toBe(before);
    const inspected = await runCli(['inspect', small, '--json']);
    expect(JSON.parse(inspected.stdout)).toMatchObject({ format: 'stream', machine: 'pc-i440fx-10.0' });
  });

  it('prints JSON', async () => {
    const small = join(dir, 'small');
    const { stdout } = await runCli(['resume', file, '--map', '--stream', small, '--json']);
    expect(JSON.parse(stdout)).toMatchObject({
      ...{ jsonVersion: 1, source: file, machine: 'pc-i440fx-10.0', stream: small, length: readFileSync(small).length },
      blocks: [{ idstr: 'pc.ram', id: 'pc.ram', offset: 1 << 20, length: 2 << 20 }],
    });
  });

  it('--private makes a copy beside it', async () => {
    const small = join(dir, 'small');
    const { stdout, stderr } = await runCli(['resume', file, '--map', '--stream', small, '--private']);
    expect(stdout).toContain(`mem-path=${small}.ram,`);
    expect(stderr).toMatch(/small\.ram is a (reflink|copy) of /);
    expect(readFileSync(`${small}.ram`).equals(readFileSync(file))).toBe(true);
  });
});

describe('a FILE of another form', () => {
  it('is refused with the command that makes one that can be mapped', async () => {
    const stream = join(dir, 'guest.migration');
    copyFileSync(fixturePath('pc-plain-10.0.bin'), stream);
    rmSync(file);
    const refused = await runCli(['resume', stream, '--map', '--stream', join(dir, 'small')]);
    expect([refused.code, refused.stdout]).toEqual([2, '']);
    const command = `vmferry convert ${stream} ${file}`;
    expect(refused.stderr).toContain(`--map needs a mapped-ram file: make one with ${command}\n`);
    expect((await runCli(command.split(' ').slice(1))).code).toBe(0);
    expect((await runCli(['resume', file, '--map', '--stream', join(dir, 'small')])).code).toBe(0);
  });

  it('is refused if it is inside another one', async () => {
    const packed = join(dir, 'guest.gz');
    copyFileSync(fixturePath('pc-mapped-ram-multifd-10.0.bin.gz'), packed);
    const { code, stderr } = await runCli(['resume', packed, '--map', '--', qemu, ...fits]);
    expect(code).toBe(2);
    expect(stderr).toMatch(
      /not inside another file: make one with vmferry convert \S+guest\.gz \S+guest\S*\.mapped-ram$/m,
    );
    expect(existsSync(`${qemu}.args`)).toBe(false);
  });
});

describe('with a command', () => {
  it('adds the arguments, gives it the small stream, and passes on the exit code', async () => {
    const small = join(dir, 'small');
    await runCli(['resume', file, '--map', '--stream', small]);
    const before = digest();
    await using command = new LiveCommand(['resume', file, '--map', '--', qemu, ...fits], { stdin: 'pipe' });
    await command.says(/^started$/m);
    expect(lines(`${qemu}.args`)).toEqual([
      ...[...fits, '-object', expect.stringContaining(`mem-path=${file},offset=1048576`)],
      ...['-machine', 'memory-backend=pc.ram', '-incoming', 'fd:3'],
    ]);
    command.child.stdin?.end('7\n');
    const { code, stdout, stderr } = await command.ended;
    expect([code, stdout]).toEqual([7, '']);
    expect(stderr).toMatch(/error: \S+qemu ended with exit code 7\n.*guest: source: FILE is as it was/);
    expect(readFileSync(`${qemu}.stream`).equals(readFileSync(small))).toBe(true);
    expect(digest()).toBe(before);
  });

  it('takes the place of the memory backends of the command', async () => {
    const own = [
      '-object',
      'memory-backend-memfd,id=pc.ram,size=2M,share=on',
      '-machine',
      'pc,memory-backend=pc.ram',
      '-m',
      '2',
    ];
    await using command = new LiveCommand(['resume', file, '--map', '--', qemu, ...own], { stdin: 'pipe' });
    await command.says(/^started$/m);
    expect(lines(`${qemu}.args`)).toEqual([
      ...[...own.slice(2), '-object', expect.stringMatching(/^memory-backend-file,id=pc.ram,/), '-incoming', 'fd:3'],
    ]);
    expect(command.stderr).toMatch(/warning: the guest gets memory of its own: vhost-user devices/);
    command.child.stdin?.end('\n');
    expect((await command.ended).code).toBe(0);
  });

  it.each([
    [['-M', 'q35', '-m', '2'], /saved on the machine type pc-i440fx-10.0: expected -machine pc-i440fx-10.0, got q35/],
    [['-M', 'pc'], /has 2 MiB of RAM: expected -m 2M, got QEMU's default of 128 MiB/],
    [[...fits, '-incoming', 'defer'], /expected ARGS without -incoming/],
  ])('says what does not fit before anything runs: %s', async (args, message) => {
    const { code, stderr } = await runCli(['resume', file, '--map', '--', qemu, ...args]);
    expect([code, stderr]).toEqual([2, expect.stringMatching(message)]);
    expect(existsSync(`${qemu}.args`)).toBe(false);
  });

  it('says that a program is not there', async () => {
    const { code, stderr } = await runCli(['resume', file, '--map', '--', '/nonexistent/qemu', ...fits]);
    expect([code, stderr]).toEqual([2, expect.stringMatching(/cannot run \/nonexistent\/qemu: .*ENOENT/)]);
  });

  it('says what to do with a QEMU that cannot do it', async () => {
    const help = 'echo "memory-backend-file options:"; echo "  mem-path=<string>"; echo "  readonly=<bool>"; exit 0';
    const old = script(
      'old',
      `case "$*" in *,help*) ${help};; *--version*) echo "QEMU emulator version 7.2.22";; *) exit 1;; esac`,
    );
    const { code, stderr } = await runCli(['resume', file, '--map', '--', old, ...fits]);
    expect(code).toBe(2);
    expect(stderr).toMatch(
      /QEMU 7\.2\.22 cannot run on a mapped-ram file: its memory-backend-file has no offset and no rom/,
    );
    expect(stderr).toContain(`run vmferry extract ${file} --block pc.ram -o pc.ram.raw`);
  });

  it('recognizes an old QEMU by its version, before its arguments are tried', async () => {
    const help = 'echo "  mem-path=<string>"; exit 0';
    const run = (name: string, version: string) => {
      const said = `echo "QEMU emulator version ${version}"; exit 0`;
      const qemu = script(name, `case "$*" in *,help*) ${help};; --version) ${said};; *) exit 7;; esac`);
      return runCli(['resume', file, '--map', '--', qemu, ...fits]);
    };
    const old = await run('qemu-system-x86_64', '7.2.22');
    expect([old.code, old.stderr]).toEqual([2, expect.stringMatching(/QEMU 7\.2\.22 cannot run on a mapped-ram file/)]);
    expect(existsSync(join(dir, 'qemu-system-x86_64.args'))).toBe(false);
    // A newer one is run, and so is a program of another name.
    expect((await run('qemu-kvm', '8.2.0')).code).toBe(7);
    expect((await run('wrapper', '7.2.22')).code).toBe(7);
  });

  it.each(['SIGINT', 'SIGTERM', 'SIGHUP'] as const)('passes on %s', async (signal) => {
    const patient = script(
      'patient',
      'trap "echo got it >&2; exit 0" INT TERM HUP; cat <&3 > /dev/null; echo started >&2; read word',
    );
    await using command = new LiveCommand(['resume', file, '--map', '--', patient, ...fits], { stdin: 'pipe' });
    await command.says(/^started$/m);
    command.kill(signal);
    const { code, stderr } = await command.ended;
    expect(code).toBe({ SIGINT: 130, SIGTERM: 143, SIGHUP: 129 }[signal]);
    expect(stderr).toMatch(new RegExp(`got it\\n[\\s\\S]*ended by ${signal}\\n.*guest: source: FILE is as it was`));
  });

  it('--private runs on a copy that has no name any more', async () => {
    await using command = new LiveCommand(['resume', file, '--map', '--private', '--', qemu, ...fits], {
      stdin: 'pipe',
    });
    await command.says(/^started$/m);
    const [, copy = ''] = /mem-path=([^,]+),/.exec(readFileSync(`${qemu}.args`, 'utf8')) ?? [];
    expect(copy).toMatch(/\.vmferry-/);
    const other = fixturePath('pc-plain-10.0.bin');
    expect((await runCli(['convert', other, file])).code).toBe(0);
    command.child.stdin?.end('\n');
    expect((await command.ended).code).toBe(0);
    expect(existsSync(copy)).toBe(false);
    expect(readdirSync(dir).filter((name) => name.startsWith('.vmferry'))).toEqual([]);
  });
});

describe('the lock', () => {
  const other = fixturePath('pc-plain-10.0.bin');
  const convert = () => runCli(['convert', other, file]);

  it('keeps writers away for as long as the guest runs, also if vmferry is killed', async () => {
    const before = digest();
    const lasting = script('lasting', 'mkfifo "$0.end"; cat <&3 > /dev/null; echo started >&2; read word < "$0.end"');
    const command = new LiveCommand(['resume', file, '--map', '--', lasting, ...fits]);
    await command.says(/is locked: it must not change while a guest runs on it[\s\S]*^started$/m);
    const refused = await convert();
    expect([refused.code, refused.stderr]).toEqual([
      2,
      expect.stringMatching(/guest\.mapped-ram is in use: a guest runs on it/),
    ]);
    // A second guest shares the lock.
    await using second = new LiveCommand(['resume', file, '--map', '--', qemu, ...fits], { stdin: 'pipe' });
    await second.says(/^started$/m);
    second.child.stdin?.end('\n');
    expect((await second.ended).code).toBe(0);
    command.child.kill('SIGKILL');
    expect((await convert()).code).toBe(2);
    expect(digest()).toBe(before);
    writeFileSync(`${lasting}.end`, '\n');
    await command.ended;
    expect((await convert()).code).toBe(0);
  });

  it('cannot be had without the program flock, which is said', async () => {
    const env = { PATH: '/nonexistent' };
    const own = script('own', '/bin/cat <&3 > /dev/null');
    const { code, stderr } = await runCli(['resume', file, '--map', '--', own, ...fits], undefined, { env });
    expect([code, stderr]).toEqual([0, expect.stringMatching(/warning: \S+ could not be locked \(no program flock\)/)]);
    expect((await runCli(['convert', other, file], undefined, { env })).code).toBe(0);
  });

  it('is respected by a migration into the file', async () => {
    await using command = new LiveCommand(['resume', file, '--map', '--', qemu, ...fits], { stdin: 'pipe' });
    await command.says(/^started$/m);
    const before = digest();
    const sent = await runCli(['send', other, `file:${file}`]);
    expect([sent.code, sent.stderr]).toEqual([2, expect.stringMatching(/is in use: a guest runs on it/)]);
    // The two ways in which vmferry vm writes a file in place.
    const address = { transport: 'file', filename: file, offset: 0 } as const;
    expect(() => createMappedFile(address, false)).toThrow(/is in use: a guest runs on it/);
    expect(() => createStateFile(file, false, () => undefined)).toThrow(/is in use: a guest runs on it/);
    expect(digest()).toBe(before);
    command.child.stdin?.end('\n');
    await command.ended;
  });
});

describe('--clones', () => {
  const threeNamed = (own: string, name: string) =>
    runCli(['resume', file, '--map', '--clones', '3', '--', own, ...fits, '-name', name]);

  it('starts each with its number', async () => {
    const own = script('own', 'printf "%s\\n" "$@" > "$0.$6"; cat <&3 > "$0.$6.stream"; exit 0');
    const { code, stderr } = await threeNamed(own, 'vm{n}');
    expect(code).toBe(0);
    expect(stderr).toMatch(/warning: the machine has no vmgenid device/);
    for (const n of [1, 2, 3]) {
      expect(lines(`${own}.vm${n}`).slice(0, 6)).toEqual([...fits, '-name', `vm${n}`]);
      expect(readFileSync(`${own}.vm${n}.stream`).equals(readFileSync(`${own}.vm1.stream`))).toBe(true);
    }
  });

  it('passes on the first exit code that is not 0', async () => {
    const own = script('own', 'cat <&3 > /dev/null; exit $6');
    const { code, stderr } = await threeNamed(own, '{n}');
    expect([code, stderr]).toEqual([1, expect.stringMatching(/error: clone 1 ended with exit code 1/)]);
  });

  it('is refused if they would share a disk, unless each has an overlay', async () => {
    const disk = join(dir, 'disk.img');
    writeFileSync(disk, Buffer.alloc(1 << 20, 7));
    const before = readFileSync(disk);
    const args = [...fits, '-drive', `file=${disk},format=raw,if=virtio`];
    const shared = await runCli(['resume', file, '--map', '--clones', '2', '--', qemu, ...args]);
    expect([shared.code, shared.stderr]).toEqual([
      2,
      expect.stringMatching(/clones 1 and 2 would both write \S+disk\.img/),
    ]);
    const own = script('own', 'echo "$6" >> "$0.drives"; cat <&3 > /dev/null');
    const kept = mkdtempSync(join(dir, 'kept-'));
    const words = ['resume', file, '--map', '--clones', '2', '--overlay'];
    expect((await runCli([...words, '--overlay-dir', kept, '--', own, ...args])).code).toBe(0);
    const overlays = readdirSync(kept).sort();
    expect(overlays).toEqual(['disk.img.disk1.clone1.qcow2', 'disk.img.disk1.clone2.qcow2']);
    expect(lines(`${own}.drives`).sort()).toEqual(
      overlays.map((name) => `file=${join(kept, name)},format=qcow2,if=virtio`),
    );
    // Those that are not kept are gone.
    rmSync(`${own}.drives`);
    expect((await runCli([...words, '--', own, ...args])).code).toBe(0);
    const [first = ''] = lines(`${own}.drives`);
    expect(existsSync(/file=([^,]+),/.exec(first)?.[1] as string)).toBe(false);
    // An overlay of an earlier run is not overwritten.
    expect((await runCli([...words, '--overlay-dir', kept, '--', own, ...args])).code).toBe(2);
    expect(readFileSync(disk).equals(before)).toBe(true);
  });

  it('warns of sockets that all would open', async () => {
    const own = script('own', 'cat <&3 > /dev/null');
    const args = [...fits, '-qmp', 'unix:/x,server=on', '-serial', 'unix:/y{n},server=on'];
    const { stderr } = await runCli(['resume', file, '--map', '--clones', '2', '--', own, ...args]);
    expect(stderr).toMatch(/warning: all clones have -qmp unix:\/x,server=on: put \{n\} into it/);
    expect(stderr).not.toMatch(/all clones have -serial/);
  });
});
