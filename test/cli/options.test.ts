/** Every pair of options of every command: impossible pairs are refused, and all others are accepted. */
import { describe, expect, it } from 'vitest';
import type { CliCommand } from '../../src/cli/command.ts';
import { buildProgram } from '../../src/cli/program.ts';

/** Arguments that each command needs with any options. */
const needed: Record<string, string[]> = {
  inspect: ['x'],
  verify: ['x'],
  check: ['x', '--against', 'y'],
  diff: ['x', 'y'],
  merge: ['x', 'y', 'out.stream'],
  read: ['x'],
  search: ['x', 'pattern'],
  estimate: ['x'],
  completion: ['bash'],
  receive: ['tcp:127.0.0.1:0', 'out.mapped-ram'],
  send: ['x', 'tcp:127.0.0.1:1'],
  relay: ['tcp:127.0.0.1:0', 'tcp:127.0.0.1:1'],
  qmp: ['/nonexistent'],
  vm: ['--qmp', 'stdio'],
  resume: ['x', '--map', 'qemu'],
};

/** Values by the name of the placeholder. All others take `z`. */
const values: Record<string, string> = {
  UUID: '01234567-89ab-cdef-0123-456789abcdef',
  'BLOCK@ADDRESS': 'dimm@4G',
  RATE: '1gbps',
  SPEC: 'write:rate=1M',
  FAULTS: 'split-answers',
  PAGES: '4096',
};
const numbers = new Set(['N', 'L', 'SIZE', 'OFFSET', 'ADDRESS', 'BYTES', 'TIME', 'SECONDS']);

/** Options of relay that do not encode RAM again. */
const relayRest = [
  '--compat|--uuid|--scratch|--object|--setup-timeout|--idle-timeout|--json|--quiet|--listen-tls-creds|--listen-tls-authz',
  '--target-tls-creds|--target-tls-hostname|--max-bandwidth|--tee|--record',
].join('|');

/** The options of read and search that are about addresses. */
const addresses = [
  ...['--block --physical|--virtual', '--physical --virtual', '--cpu * but --virtual', '--cr3 * but --virtual'],
  ...['--below-4g', '--above-4g', '--ram', '--dimm'].map((flag) => `${flag} * but --physical|--virtual`),
];

/**
 * Refused pairs; `*` is any other option or none. The list was written from what each mode can do, not from the code.
 */
const refused: Record<string, readonly string[]> = {
  inspect: [
    '--devices --device|--xml|--cookie|--sections|--pages|--hash',
    '--device --xml|--cookie|--sections|--pages|--hash',
    '--xml --cookie|--sections|--pages|--hash|--json',
    '--cookie --sections|--pages|--hash|--json',
    '--pages --json',
    '--scratch * but --hash',
  ],
  verify: [],
  check: [],
  diff: ['--devices --scratch'],
  merge: [],
  read: ['--json --raw|--output', '--raw --output', ...addresses],
  search: [
    ...['--hex --regex|--utf16|--ignore-case', '--regex --utf16', '--count --max|--context', '--file *'],
    ...addresses,
  ],
  estimate: ['--quick *', '--interval *', '--sample-pages *', '--working-set * but --dirty-rate'],
  completion: [],
  qmp: ['--replay *', '--compat *'],
  vm: ['--incoming --load|--ram', '--load --memory|--machine|--ram', '--channel * but --load'],
  // --to stands for its first choice, mapped-ram.
  receive: [
    '--tls-authz * but --tls-creds',
    // It takes the place of OUT.
    '--recover *',
    ...['--multifd-channels *', '--multifd-compression *', '--level *', '--uuid *', '--xml *', '--compat *'],
  ],
  send: [
    '--tls-hostname * but --tls-creds',
    // --multifd-compression stands for its first choice, none.
    '--level *',
    '--postcopy-preempt * but --postcopy',
    '--postcopy --multifd-channels|--multifd-compression|--no-confirm',
    '--uuid --uuid|--postcopy|--max-bandwidth|--tls-creds|--compat|--confirm|--no-confirm|--scratch|--object',
    '--uuid --setup-timeout|--idle-timeout|--json|--quiet|--channel|--resume-of|--preempt|--return-path|--no-discover',
  ],
  // --map stands for the two ways.
  resume: [
    ...['--stream *', '--overlay-dir * but --overlay', '--serve *', '--postcopy-preempt *', '--record *', '--order *'],
    ...['--max-postcopy-bandwidth *', '--recover *', '--tls-creds *', '--tls-hostname *', '--compat *', '--cache *'],
    '--tls-authz *',
  ],
  relay: [
    '--listen-tls-authz * but --listen-tls-creds',
    '--target-tls-hostname * but --target-tls-creds',
    // One of the two encodes RAM again; the pairs without them are listed.
    ...['--compat', '--uuid', '--scratch'].map((option) => `${option} ${relayRest}`),
  ],
};

function isRefused(table: readonly string[], pair: readonly [string, string]): boolean {
  return table.some((rule) => {
    const [text = '', except] = rule.split(' but ');
    if (except?.split('|').some((flag) => pair.includes(flag)) === true) return false;
    const [first = '', others = ''] = text.split(' ');
    const fits = (one: string, other: string) =>
      (first === '*' || one === first) && (others === '*' || others.split('|').includes(other));
    return fits(pair[0], pair[1]) || fits(pair[1], pair[0]);
  });
}

/** Parses a command line like `vmferry`, without running anything. */
async function refusal(args: string[]): Promise<string | undefined> {
  const program = await buildProgram(args[0]);
  for (const command of program.commands) command.action(() => {});
  return program.parseAsync(args, { from: 'user' }).then(
    () => undefined,
    (error: Error) => error.message,
  );
}

type Flagged = { flag: string; words: string[] };

function flagsOf(command: CliCommand): Flagged[] {
  return command.options
    .filter(({ mandatory }) => !mandatory)
    .map((option) => {
      const name = /<(.*)>/.exec(option.flags)?.[1];
      const flag = option.long as string;
      if (name === undefined) return { flag, words: [flag] };
      return { flag, words: [flag, option.argChoices?.[0] ?? values[name] ?? (numbers.has(name) ? '1' : 'z')] };
    });
}

const commandLine = (name: string, one: Flagged, other: Flagged): string[] => [
  ...[name, ...(needed[name] as string[])],
  ...[...one.words, ...(other === one ? [] : other.words)],
];

describe.each(Object.keys(refused))('%s', (name) => {
  it('refuses impossible pairs of options, and accepts all others', async () => {
    const program = await buildProgram(name);
    const flags = flagsOf(program.commands[0] as CliCommand);
    const wrong: string[] = [];
    for (const [i, one] of flags.entries()) {
      for (const other of flags.slice(i)) {
        const message = await refusal(commandLine(name, one, other));
        const expected = isRefused(refused[name] ?? [], [one.flag, other.flag]);
        if ((message !== undefined) !== expected) wrong.push(`${one.flag} ${other.flag}: ${message ?? 'taken'}`);
      }
    }
    expect(wrong).toEqual([]);
  });
});

describe('extract', () => {
  const modes = {
    block: ['--block', 'b', '-o', 'out'],
    all: ['--all', 'dir'],
    device: ['--device', 'd', '-o', 'out'],
    physical: ['--physical', '-o', 'out'],
    elf: ['--elf', '-o', 'out'],
  };
  const physicalOnly: [string, string[]][] = [
    ['--below-4g', ['--below-4g', '1G']],
    ['--ram', ['--ram', 'b']],
    ['--dimm', ['--dimm', 'b@4G']],
    ['--scratch', ['--scratch', '/tmp']],
  ];
  it.each(Object.entries(modes))('--%s accepts its own options and no others', async (mode, words) => {
    const isPhysical = mode === 'physical' || mode === 'elf';
    expect(await refusal(['extract', 'x', ...words])).toBeUndefined();
    expect(await refusal(['extract', 'x', ...words, '--json'])).toBeUndefined();
    for (const [flag, more] of physicalOnly) {
      expect((await refusal(['extract', 'x', ...words, ...more])) === undefined, flag).toBe(isPhysical);
    }
    for (const more of [[], ['--cpu', '0'], ['--cr3', '0x1000']]) {
      expect((await refusal(['extract', 'x', ...words, '--paging', ...more])) === undefined).toBe(mode === 'elf');
      if (more.length > 0) expect(await refusal(['extract', 'x', ...words, ...more])).toBeTypeOf('string');
    }
    for (const [other, more] of Object.entries(modes)) {
      if (other !== mode) expect(await refusal(['extract', 'x', ...words, ...more]), other).toBeTypeOf('string');
    }
  });

  it('accepts --scratch for a block on standard output, but not --json', async () => {
    const words = ['extract', 'x', '--block', 'b', '-o', '-'];
    expect(await refusal([...words, '--scratch', '/tmp'])).toBeUndefined();
    expect(await refusal([...words, '--json'])).toMatch(/either --json or the bytes/);
    expect(await refusal(['extract', 'x', '--all', 'd', '-o', 'out'])).toMatch(/--output cannot be used with --all/);
  });
});

describe('convert', async () => {
  /** The options of each form, apart from --json, --scratch and --no-verify. */
  const forms: Record<string, string[]> = {
    stream: ['--base', '--compat', '--drop-description'],
    multifd: ['--compat', '--drop-description', '--multifd-channels', '--multifd-compression', '--uuid'],
    'mapped-ram': ['--direct-io', '--drop-description', '--only-changed-from'],
    raw: ['--block'],
    libvirt: ['--xml', '--libvirt-format', '--compat', '--drop-description'],
  };
  const optional = (await buildProgram('convert')).commands[0] as CliCommand;
  const own = [...new Set([...Object.values(forms).flat(), '--level'])];

  it.each(Object.entries(forms))('--to %s accepts its own options and no others', async (form, taken) => {
    const all = flagsOf(optional);
    const base = ['convert', 'x', 'out', '--to', form, ...(form === 'raw' ? ['--block', 'b'] : [])];
    for (const flag of own) {
      const words = all.find((each) => each.flag === flag)?.words ?? [];
      const isTaken = (await refusal([...base, ...words])) === undefined;
      expect(isTaken, flag).toBe(taken.includes(flag));
    }
  });

  it('--channels is an alias of --multifd-channels', async () => {
    for (const flag of ['--channels', '--multifd-channels']) {
      expect(await refusal(['convert', 'x', 'out', '--to', 'multifd', flag, '4'])).toBeUndefined();
    }
  });

  it('--only-changed-from refuses options of other forms', async () => {
    const base = ['convert', 'x', 'out.mapped-ram', '--only-changed-from', 'y'];
    expect(await refusal(base)).toBeUndefined();
    for (const flag of own.filter((each) => each !== '--only-changed-from')) {
      const words = flagsOf(optional).find((each) => each.flag === flag)?.words ?? [];
      expect(await refusal([...base, ...words]), flag).toBeTypeOf('string');
    }
    expect(
      await refusal(['convert', 'x', 'out', '--libvirt-format', 'sparse', '--to', 'libvirt', '--compat', '9.0']),
    ).toMatch(/--compat does not go with --libvirt-format sparse/);
  });
});

it('the table has every command', async () => {
  const names = (await buildProgram()).commands.map((command) => command.name());
  expect([...Object.keys(refused), 'extract', 'convert'].sort()).toEqual([...names].sort());
});
