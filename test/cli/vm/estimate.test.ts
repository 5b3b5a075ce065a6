/** `vmferry estimate SOCKET` asks a `vmferry vm`. */
import { expect, it } from 'vitest';
import type { EstimateJson } from '../../../src/tasks/json.ts';
import { runCli } from '../../run-cli.ts';
import { VmProcess } from '../../support/vm-process.ts';

it('a VM of 64 MiB that writes to 8 of them', async () => {
  const workload = 'write:rate=8M,working-set=8M,pattern=random,seed=7';
  await using vm = await VmProcess.start('--memory', '64M', '--workload', workload);
  const state = () =>
    Promise.all(['query-status', 'query-migrate', 'query-migrate-parameters'].map((each) => vm.execute(each)));
  const before = await state();
  const words = ['estimate', `unix:${vm.second}`, '--bandwidth', '64M', '--quick', '--json'];
  const { code, stdout, stderr } = await runCli(words);
  expect([code, stderr]).toEqual([0, '']);
  const found = JSON.parse(stdout) as EstimateJson;
  expect(found.memory?.all.pages).toBe((64 << 20) / 4096);
  // At most 8 MiB and the page tables of nothing: 7 of 8 sampled pages are zero, give or take the sample's error.
  expect(found.memory?.all.zero).toBeGreaterThan((40 << 20) / 4096);
  expect(found.convergence?.map(({ mode }) => mode)).toContain('plain');
  expect(await state()).toEqual(before);
});

it('a VM that waits for a migration is refused', async () => {
  await using vm = await VmProcess.start('--incoming', 'defer');
  const { code, stderr } = await runCli(['estimate', `unix:${vm.second}`, '--bandwidth', '64M', '--quick']);
  expect([code, stderr]).toEqual([3, expect.stringContaining('waits for an incoming migration')]);
});
