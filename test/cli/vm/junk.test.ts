/** Strangers at the incoming port of `vmferry vm`: it ends as a QEMU does, with its text. */
import { describe, expect, it } from 'vitest';
import { junk, sendJunk } from '../../support/junk.ts';
import { VmProcess } from '../../support/vm-process.ts';

describe('a VM that waits for a migration', () => {
  it.each(Object.entries(junk))('ends with 1 when %s comes', async (_, each) => {
    await using vm = await VmProcess.start('--incoming', 'tcp:127.0.0.1:0', '--compat', '10.0');
    await vm.switchOn('events');
    const close = await sendJunk(Number((await vm.incomingUri()).split(':')[2]), each);
    expect(await vm.ended).toBe(1);
    close();
    expect(vm.stderr.trim().split('\n')).toEqual(
      each.says.map((text, index) =>
        expect.stringMatching(new RegExp(`^vmferry: warning: ${text}${index === 1 ? '$' : ''}`)),
      ),
    );
    expect(vm.events.filter((name) => name.startsWith('MIGRATION'))).toEqual(['MIGRATION active', 'MIGRATION failed']);
  });

  it('says nothing when it is told to quit', async () => {
    await using vm = await VmProcess.start('--incoming', 'tcp:127.0.0.1:0');
    await vm.execute('quit');
    expect([await vm.ended, vm.stderr]).toEqual([0, '']);
  });

  it('says why it failed, and stays, without exit-on-error', async () => {
    await using vm = await VmProcess.start('--incoming', 'defer', '--compat', '10.0');
    await vm.switchOn('events');
    await vm.execute('migrate-incoming', { uri: 'tcp:127.0.0.1:0', 'exit-on-error': false });
    await sendJunk(Number((await vm.incomingUri()).split(':')[2]), junk['another version'] as (typeof junk)[string]);
    await vm.event('MIGRATION failed');
    const error = 'load of migration failed: Operation not supported';
    expect(await vm.execute('query-migrate')).toEqual({ status: 'failed', 'error-desc': error });
    expect(vm.stderr).toBe('vmferry: warning: Unsupported migration stream version\n');
  });
});
