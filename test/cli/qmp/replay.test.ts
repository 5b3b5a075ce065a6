/** `vmferry qmp --replay`: the requests of a transcript, and what is said about them. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readTranscript } from '../../../src/cli/qmp/transcript.ts';
import { runCli } from '../../run-cli.ts';

describe('a transcript', () => {
  it('is lines of JSON, marked or not, words, answers and comments', () => {
    const text = [
      '# a comment',
      '{"QMP": {"version": {}, "capabilities": []}}',
      '{"execute": "qmp_capabilities"}',
      '{"return": {}}',
      '-> {"execute": "stop"}',
      '<- {"return": {}}',
      '7.2 <- {"return": {}}',
      '',
      '--> {',
      '  "execute": "cont"',
      '}',
      '{"event": "RESUME", "timestamp": {}}',
      'migrate uri=tcp:host:1 resume=true',
      '+> {"execute":',
      '-> "query-name"}',
      '-> {"a"',
      '-> nonsense',
      '{"QMP": {}}',
      "{'execute': 'stop', 'arguments': {}}",
    ].join('\n');
    expect(readTranscript(text)).toEqual([
      { line: 3, text: '{"execute": "qmp_capabilities"}', isFirst: true },
      { line: 5, text: '{"execute": "stop"}', isFirst: false },
      { line: 9, text: '{\n  "execute": "cont"\n}', isFirst: false },
      {
        ...{ line: 13, isFirst: false },
        text: '{"execute": "migrate", "arguments": {"uri": "tcp:host:1", "resume": true}}',
      },
      { line: 14, text: '{"execute":\n "query-name"}', isFirst: false },
      { line: 16, text: '{"a"', isFirst: false },
      { line: 17, text: 'nonsense', isFirst: false },
      { line: 19, text: "{'execute': 'stop', 'arguments': {}}", isFirst: true },
    ]);
  });
});

describe('vmferry qmp --replay', () => {
  let directory = '';
  const write = (name: string, lines: readonly string[]) => {
    const path = join(directory, name);
    writeFileSync(path, `${lines.join('\n')}\n`);
    return path;
  };
  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'vmferry-replay-'));
  });
  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  it('says which release would refuse which line, and exits with 1', async () => {
    const path = write('new', [
      '{"execute": "migrate", "arguments": {"channels": [{"channel-type": "main", "addr": {"transport": "exec", "args": ["true"]}}]}}',
      'migrate-set-parameters multifd-channels=0',
      'query-migrationthreads',
      'device_add driver=e1000',
    ]);
    const { code, stdout, stderr } = await runCli(['qmp', '--replay', path]);
    expect([code, stderr]).toEqual([1, '']);
    const [channels, range, threads, ...rest] = stdout.trimEnd().split('\n');
    expect(channels).toMatch(/:1: migrate: QEMU 7\.2: Parameter 'uri' is missing$/);
    expect(range).toMatch(
      /:2: migrate-set-parameters: QEMU 7\.2, 9\.0, 10\.0: Parameter 'multifd_channels' expects a value/,
    );
    expect(threads).toMatch(
      /:3: query-migrationthreads: QEMU 7\.2: The command query-migrationthreads has not been found$/,
    );
    expect(rest).toEqual([
      ...['QEMU 7.2: 3 refused, 0 accepted', 'QEMU 9.0: 1 refused, 2 accepted', 'QEMU 10.0: 1 refused, 2 accepted'],
      'not judged: 1 (device_add): vmferry does not have their schema',
    ]);
  });

  it('prints JSON, asks one release, and exits with 0 if nothing is refused', async () => {
    const path = write('old', ['{"execute": "query-migrationthreads"}', '-> {"execute": 5}']);
    const all = await runCli(['qmp', '--replay', path, '--json', '--compat', '7.2']);
    expect(all.code).toBe(1);
    expect(JSON.parse(all.stdout)).toEqual({
      jsonVersion: expect.any(Number),
      releases: ['7.2'],
      requests: 2,
      refused: [
        {
          ...{ line: 1, command: 'query-migrationthreads' },
          by: [
            {
              ...{ release: '7.2', class: 'CommandNotFound' },
              desc: 'The command query-migrationthreads has not been found',
            },
          ],
        },
        {
          line: 2,
          by: [{ release: '7.2', class: 'GenericError', desc: "QMP input member 'execute' must be a string" }],
        },
      ],
      unknown: [],
    });
    const fine = write('fine', ['query-migrate', 'migrate uri=tcp:h:1']);
    expect(await runCli(['qmp', '--replay', fine])).toMatchObject({ code: 0, stderr: '' });
  });

  it('refuses what it cannot use', async () => {
    const empty = write('empty', ['# nothing', '{"return": {}}']);
    expect(await runCli(['qmp', '--replay', empty])).toMatchObject({ code: 2 });
    expect(await runCli(['qmp', '--replay', join(directory, 'none')])).toMatchObject({ code: 2 });
    expect(await runCli(['qmp', 'socket', '--replay', empty])).toMatchObject({ code: 2 });
    expect(await runCli(['qmp', 'socket', '--compat', '7.2'])).toMatchObject({ code: 2 });
    expect(await runCli(['qmp'])).toMatchObject({ code: 2, stderr: expect.stringContaining('SOCKET') });
  });
});
