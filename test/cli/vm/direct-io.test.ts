/** direct-io of `vmferry vm`: a second descriptor of the file, open with O_DIRECT, where QEMU would have one, and the same guest. */
import { constants, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { openDirect } from '../../../src/io/node/file.ts';
import { VmProcess } from '../../support/vm-process.ts';

const size = 16 << 20;

/** How many descriptors of a file a process has with O_DIRECT. */
function directDescriptors(pid: number, path: string): number {
  const fds = readdirSync(`/proc/${pid}/fd`).filter((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`) === path;
    } catch {
      // It was closed in the meantime.
      return false;
    }
  });
  const flagsOf = (fd: string) => {
    const [, octal = '0'] = /^flags:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'utf8')) ?? [];
    return Number.parseInt(octal, 8);
  };
  return fds.filter((fd) => (flagsOf(fd) & constants.O_DIRECT) !== 0).length;
}

it.each([
  ['with multifd', ['mapped-ram', 'multifd'], 1],
  ['without multifd', ['mapped-ram'], 0],
])('%s the pages go past the page cache as in QEMU, and arrive', async (_, capabilities, count) => {
  await using from = await VmProcess.start(
    ...['--memory', '16M', '--workload', 'write:rate=64M,working-set=4M,pattern=random', '--compat', '10.0'],
  );
  await using to = await VmProcess.start('--incoming', 'defer', '--compat', '10.0', '--paused');
  const path = join(from.dir, 'guest');
  await from.switchOn('events', 'pause-before-switchover', ...capabilities);
  await from.execute('migrate-set-parameters', { 'direct-io': true });
  await from.execute('migrate', { uri: `file:${path},offset=4096` });
  await from.event('MIGRATION pre-switchover');
  // Where the file system has no direct I/O, there is none.
  const isPossible = openDirect(path) !== undefined;
  expect(directDescriptors(from.child.pid as number, path)).toBe(isPossible ? count : 0);
  await from.execute('migrate-continue', { state: 'pre-switchover' });
  await from.event('MIGRATION completed');
  await to.switchOn('events', ...capabilities);
  await to.execute('migrate-incoming', { uri: `file:${path},offset=4096` });
  await to.event('MIGRATION completed');
  const [sent, arrived] = [await from.saveMemory(size), await to.saveMemory(size)];
  expect(readFileSync(arrived).equals(readFileSync(sent))).toBe(true);
});
