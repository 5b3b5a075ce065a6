/** `vmferry qmp`: a client and a shell for any QMP server. */
import { createInterface, type Interface } from 'node:readline';
import { Option } from 'commander';
import { PeerError } from '../../io/connection.ts';
import type { QmpClient } from '../../qmp/client.ts';
import { printJson } from '../../qmp/json-value.ts';
import { QmpError } from '../../qmp/qmp-error.ts';
import { ServerSchema } from '../../qmp/server-schema.ts';
import type { ReleaseName } from '../../schema/release-rules.ts';
import type { CliCommand } from '../command.ts';
import { ExitCode, UsageError } from '../exit-codes.ts';
import { reportError } from '../messages.ts';
import { writeOut } from '../run.ts';
import { historyLines, readHistory, writeHistory } from './history.ts';
import { openMonitor } from './monitor.ts';
import { replay, replayReleases } from './replay.ts';
import { requestOf, wordsOf } from './request.ts';
import { share } from './share.ts';

interface QmpOptions {
  share?: string;
  replay?: string;
  compat: ReleaseName | 'all';
  json?: boolean;
}

export function addQmp(program: CliCommand): CliCommand {
  return program
    .command('qmp')
    .argument('[SOCKET]')
    .argument('[WORD...]')
    .summary("talk to QEMU's monitor")
    .description(
      'Runs COMMAND on the QMP server at SOCKET. Without COMMAND it is a shell, or runs the commands on standard input.',
    )
    .option(
      '--share <URI>',
      'pass the connection on to many clients at unix:PATH or tcp:HOST:PORT, until a signal ends it',
    )
    .option('--replay <TRANSCRIPT>', 'say which release would refuse which request of a transcript; there is no SOCKET')
    .addOption(
      new Option('--compat <RELEASE>', 'with --replay: the release of QEMU, or all')
        .choices(replayReleases)
        .default('all'),
    )
    .option('--json', 'print events, too, and everything on one line each')
    .describe({
      notes,
      json,
      examples,
      exitCodes: {
        [ExitCode.badInput]: 'a release would refuse a request (--replay)',
        [ExitCode.peer]: 'the server answered with an error, or broke off',
      },
      rules,
    })
    .action(talk);
}

const notes = [
  'SOCKET is unix:PATH, a path, tcp:HOST:PORT, exec:COMMAND for a program that speaks QMP, or libvirt:DOMAIN (through virsh, without events).',
  'WORD... is a command and its arguments: COMMAND ARGUMENT=VALUE..., or one JSON object with all of them. VALUE is text where the command takes text, and otherwise JSON. An argument that the server does not have is refused before anything is sent.',
  '--share: QEMU talks to one client at a time; here any number of clients connect, are greeted, negotiate for themselves, and get all events. A client that does not read holds up nobody. The socket is removed at the end.',
  '--replay: a line of TRANSCRIPT is a request in JSON, perhaps marked with ->, or a command in words. Answers, events and comments (#) are left out. Commands, arguments, capabilities and parameters are checked as QEMU checks them; what depends on the state of a VM is not.',
  'On standard input each line is a command, or a request as {"execute": "query-status"}. The first error ends it. Lines that begin with # are left out.',
];

const json = [
  { type: 'QmpEventJson', when: '--json: each event, on a line of its own' },
  { type: 'QmpReplayJson', when: '--replay --json' },
];

const rules = {
  oneOf: [['--share', '--replay']],
  needs: { '--compat': ['--replay'] },
  check(words: readonly string[], options: QmpOptions) {
    if (options.replay !== undefined && words.length > 0) {
      throw new UsageError(`--replay asks no server, so it takes no SOCKET; got ${words[0]}`);
    }
    if (options.replay === undefined && words.length === 0) throw new UsageError('expected a SOCKET');
    if (options.share !== undefined && words.length > 1) {
      throw new UsageError(`--share runs no command, got ${words.slice(1).join(' ')}`);
    }
  },
};

const examples = [
  'vmferry qmp /run/qmp.sock',
  'vmferry qmp /run/qmp.sock query-migrate',
  'vmferry qmp /run/qmp.sock migrate uri=tcp:target:4444',
  `vmferry qmp /run/qmp.sock migrate-set-parameters '{"downtime-limit": 100}'`,
  'vmferry qmp libvirt:guest query-status',
  'vmferry qmp /run/qmp.sock --share unix:/run/qmp-for-all.sock',
  'vmferry qmp --replay client.log --compat all',
];

async function talk(socket: string | undefined, words: string[], options: QmpOptions): Promise<void> {
  const { json: isJson = false } = options;
  if (options.replay !== undefined) return replay(options.replay, options.compat, isJson);
  if (options.share !== undefined) return share(socket as string, options.share);
  const controller = new AbortController();
  const client = await openMonitor(socket as string, controller.signal);
  try {
    const schema = await schemaOf(client);
    if (isJson) client.subscribe((_, message) => process.stdout.write(`${printJson(message)}\n`));
    if (words.length > 0) await run(client, words, schema, isJson);
    else if (process.stdin.isTTY === true) await shell(client, schema, isJson);
    else await script(client, schema, isJson);
  } catch (error) {
    if (!(error instanceof QmpError)) throw error;
    process.exitCode = reportError(refusalOf(error));
  } finally {
    await client.close();
  }
}

/** What the server refused is an error of the peer. */
const refusalOf = (error: QmpError) => new PeerError(error.message, { cause: error });

/** Undefined if the server does not say what it takes. */
async function schemaOf(client: QmpClient): Promise<ServerSchema | undefined> {
  try {
    return new ServerSchema(await client.execute('query-qmp-schema'));
  } catch (error) {
    if (error instanceof QmpError) return undefined;
    throw error;
  }
}

async function run(
  client: QmpClient,
  words: string[],
  schema: ServerSchema | undefined,
  isJson: boolean,
): Promise<void> {
  const { command, given } = requestOf(words, schema);
  const result: unknown = await client.execute<string>(command, given);
  await writeOut(`${isJson ? printJson(result) : pretty(result, '')}\n`);
}

/** JSON on several lines. Integers are exact. */
function pretty(value: unknown, indent: string): string {
  if (typeof value !== 'object' || value === null) return printJson(value);
  const inner = `${indent}  `;
  const isArray = Array.isArray(value);
  const parts = isArray
    ? value.map((item) => `${inner}${pretty(item, inner)}`)
    : Object.entries(value).map(([name, member]) => `${inner}${printJson(name)}: ${pretty(member, inner)}`);
  const [open, close] = isArray ? ['[', ']'] : ['{', '}'];
  return parts.length === 0 ? `${open}${close}` : `${open}\n${parts.join(',\n')}\n${indent}${close}`;
}

async function script(client: QmpClient, schema: ServerSchema | undefined, isJson: boolean): Promise<void> {
  for await (const line of createInterface({ input: process.stdin })) {
    const words = wordsOf(line);
    if (words.length > 0 && !words[0]?.startsWith('#')) await run(client, words, schema, isJson);
  }
}

async function shell(client: QmpClient, schema: ServerSchema | undefined, isJson: boolean): Promise<void> {
  const lines = createInterface({
    ...{ input: process.stdin, output: process.stdout, prompt: '(QMP) ', removeHistoryDuplicates: true },
    ...{ history: readHistory(), historySize: historyLines },
    completer: (line: string) => complete(line, schema),
  });
  let history: string[] | undefined;
  let isRunning = false;
  // While a command runs, the prompt follows its answer.
  if (!isJson) client.subscribe((event) => showEvent(lines, printJson(event), !isRunning));
  lines.on('history', (all: string[]) => {
    history = all;
  });
  void client.closed.then(() => lines.close());
  lines.prompt();
  for await (const line of lines) {
    const words = wordsOf(line);
    isRunning = true;
    try {
      if (words.length > 0) await run(client, words, schema, isJson);
    } catch (error) {
      reportError(error instanceof QmpError ? refusalOf(error) : error);
    }
    isRunning = false;
    lines.prompt();
  }
  if (history !== undefined) writeHistory(history);
}

/** Above the line that is being typed. */
function showEvent(lines: Interface, text: string, isTyping: boolean): void {
  process.stdout.write(`${isTyping ? '\r\x1b[K' : ''}${text}\n`);
  if (isTyping) lines.prompt(true);
}

/** What can follow: commands, their arguments, and the values of enums. */
export function complete(line: string, schema: ServerSchema | undefined): [string[], string] {
  const words = line.trimStart().split(/\s+/);
  const last = words.at(-1) ?? '';
  const begun = (choices: readonly string[]): [string[], string] => [
    choices.filter((choice) => choice.startsWith(last)),
    last,
  ];
  if (schema === undefined) return [[], last];
  if (words.length <= 1) return begun(schema.commands.map((name) => `${name} `));
  const known = schema.argumentsOf(words[0] ?? '') ?? [];
  const named = known.find(({ name }) => last.startsWith(`${name}=`));
  if (named !== undefined) return begun(named.values.map((value) => `${named.name}=${value} `));
  return begun(known.map(({ name }) => `${name}=`));
}
