/** `vmferry qmp` with a server of the tests. */
import { Readable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { complete } from '../../../src/cli/qmp/command.ts';
import { requestOf, wordsOf } from '../../../src/cli/qmp/request.ts';
import { ServerSchema } from '../../../src/qmp/server-schema.ts';
import { introspect } from '../../../src/schema/qapi/introspection.ts';
import { schemaOf } from '../../../src/schema/qapi/schema.ts';
import { serveSocket } from '../../qmp/serve-socket.ts';
import { settingsServer } from '../../qmp/settings-server.ts';
import { runCli } from '../../run-cli.ts';

const nine = schemaOf('9.0');
const schema = new ServerSchema(introspect(nine, nine.commands.keys(), nine.events.keys()));

describe('a command', () => {
  const seen: unknown[] = [];
  const server = settingsServer('9.0', {
    migrate: (given) => {
      seen.push(given);
    },
  });
  let at: Awaited<ReturnType<typeof serveSocket>>;
  beforeAll(async () => {
    at = await serveSocket(server);
  });
  afterAll(() => at.close());

  it('prints what the server returns, integers exactly', async () => {
    const { stdout: status } = await runCli(['qmp', at.path, 'query-status']);
    expect(status).toMatch(/^\{\n {2}"\w+": .*,\n {2}"\w+": .*\n\}\n$/);
    expect(JSON.parse(status)).toEqual({ running: true, status: 'running' });
    const set = ['migrate-set-parameters', 'max-bandwidth=18446744073709551615'];
    expect(await runCli(['qmp', `unix:${at.path}`, ...set])).toMatchObject({ code: 0, stdout: '{}\n' });
    const { stdout } = await runCli(['qmp', at.path, 'query-migrate-parameters', '--json']);
    expect(stdout).toContain('"max-bandwidth": 18446744073709551615');
  });

  it('exits with 3 on an error answer', async () => {
    const { code, stdout, stderr } = await runCli(['qmp', at.path, 'migrate-set-parameters', 'multifd-channels=0']);
    expect([code, stdout]).toEqual([3, '']);
    expect(stderr).toBe("vmferry: error: Parameter 'multifd_channels' expects a value between 1 and 255\n");
  });

  it('refuses an argument that the server does not take, and sends nothing', async () => {
    seen.length = 0;
    const { code, stderr } = await runCli(['qmp', at.path, 'migrate', 'url=tcp:x:1']);
    expect(code).toBe(2);
    expect(stderr).toContain('migrate of this server has no argument url: it takes uri, channels, ');
    expect(seen).toEqual([]);
    expect(await runCli(['qmp', at.path, 'migrate', 'uri=4444'])).toMatchObject({ code: 0 });
    expect(seen).toEqual([{ uri: '4444' }]);
  });

  it('prints events as they came with --json', async () => {
    const { stdout } = await runCli(['qmp', at.path, 'stop', '--json']);
    expect(stdout.split('\n')).toEqual([expect.stringMatching(/^\{"timestamp": \{.*"event": "STOP"\}$/), '{}', '']);
    expect((await runCli(['qmp', at.path, 'cont'])).stdout).toBe('{}\n');
  });

  it('runs a script, and ends with its first error', async () => {
    const script = '# a comment\n\nquery-name\n{"execute": "query-status"}\nnope\nquery-version\n';
    const { code, stdout, stderr } = await runCli(['qmp', at.path, '--json'], Readable.from([script]));
    expect(code).toBe(3);
    expect(stdout.split('\n').map((line) => (line === '' ? line : JSON.parse(line)))).toEqual([
      ...[{}, { running: true, status: 'running' }, ''],
    ]);
    expect(stderr).toContain('{"error":{"message":"The command nope has not been found","code":"peer","exitCode":3}');
  });

  it('says that a monitor is busy, and exits with 2', async () => {
    const busy = await serveSocket();
    try {
      const { code, stderr } = await runCli(['qmp', busy.path, 'query-status']);
      expect(code).toBe(2);
      expect(stderr).toContain('another client holds this monitor');
    } finally {
      await busy.close();
    }
  });

  it('exits with 3 if nothing listens, and with 2 for a wrong address', async () => {
    expect(await runCli(['qmp', '/nonexistent', 'query-status'])).toMatchObject({ code: 3 });
    expect(await runCli(['qmp', 'file:/nonexistent', 'query-status'])).toMatchObject({ code: 3 });
    expect(await runCli(['qmp', 'tcp:nonsense', 'query-status'])).toMatchObject({ code: 2 });
  });

  it('talks to a program', async () => {
    const relay = `exec:node -e 'const s = require("net").connect("${at.path}"); process.stdin.pipe(s).pipe(process.stdout)'`;
    expect((await runCli(['qmp', relay, 'query-name'])).stdout).toBe('{}\n');
  });
});

describe('words', () => {
  it.each([
    ['migrate uri=tcp:h:1 ', ['migrate', 'uri=tcp:h:1']],
    [`migrate uri="exec:cat > a" resume=true`, ['migrate', 'uri=exec:cat > a', 'resume=true']],
    ['migrate channels=[{"a": "b c"}] {"x": 1}', ['migrate', 'channels=[{"a": "b c"}]', '{"x": 1}']],
    ['{"execute": "stop"}', ['{"execute": "stop"}']],
    ['', []],
  ])('%s', (line, words) => {
    expect(wordsOf(line)).toEqual(words);
  });

  it('become text where the server takes text, and JSON elsewhere', () => {
    const words = ['migrate', 'uri=123', 'resume=true', '{"detach": false}'];
    expect(requestOf(words, schema)).toEqual({
      command: 'migrate',
      given: { uri: '123', resume: true, detach: false },
    });
    expect(requestOf(['newer', 'a=1', 'b=x'], schema)).toEqual({ command: 'newer', given: { a: 1, b: 'x' } });
    expect(requestOf(['object-add', 'qom-type=secret', 'id=s', 'data=1'], schema).given).toEqual({
      ...{ 'qom-type': 'secret', id: 's', data: '1' },
    });
  });

  it.each([
    [['migrate', 'x'], 'expected ARGUMENT=VALUE or a JSON object, got x'],
    [['migrate-continue'], 'migrate-continue needs the argument state: it takes state'],
    [['query-migrate', 'a=1'], 'query-migrate of this server has no argument a: it takes none'],
    [['migrate', '{"uri"}'], 'JSON parse error, missing : in object pair in {"uri"}'],
  ])('%j are refused', (words, message) => {
    expect(() => requestOf(words, schema)).toThrow(message);
  });

  it('are completed from what the server says', () => {
    expect(complete('migrate-c', schema)).toEqual([['migrate-continue '], 'migrate-c']);
    expect(complete('migrate ', schema)[0]).toContain('uri=');
    expect(complete('migrate-continue state=pre', schema)).toEqual([['state=pre-switchover '], 'state=pre']);
    expect(complete('migrate', undefined)).toEqual([[], 'migrate']);
  });
});
