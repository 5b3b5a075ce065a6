/** The command lines of clones: what each has of its own, and what they would share by mistake. */
import { randomUUID } from 'node:crypto';
import { warn } from '../messages.ts';
import { formatKeys, parseKeys, parseOptions, type QemuOption } from './qemu-arguments.ts';

/** The arguments of each clone, with its number, from 1 on, for `{n}`. */
export const numbered = (args: readonly string[], clones: number): string[][] =>
  Array.from({ length: clones }, (_, index) => args.map((arg) => arg.replaceAll('{n}', String(index + 1))));

const deviceOf = ({ name, value }: QemuOption) => (name === 'device' ? parseKeys(value ?? '', 'driver') : undefined);

/** A new id of its generation for a machine that has the device for it, so that its guest knows that it is a clone. */
export function withNewGeneration(args: readonly string[]): { args: string[]; hasDevice: boolean } {
  const renewed = [...args];
  let hasDevice = false;
  for (const option of parseOptions(args)) {
    const keys = deviceOf(option);
    if (keys?.get('driver') !== 'vmgenid') continue;
    hasDevice = true;
    renewed[option.index + option.words - 1] = formatKeys(keys.set('guid', randomUUID()));
  }
  return { args: renewed, hasDevice };
}

/** Says what guests cannot notice. */
export function warnOfGeneration(): void {
  warn(
    'the machine has no vmgenid device, so the guests cannot know that they are clones: they go on with the same random numbers until their seed is renewed (docs/resume.md)',
  );
}

/** Options that bind a socket, a port or a file of the host. */
const bound = new Set('qmp qmp-pretty monitor serial parallel chardev pidfile vnc spice gdb D'.split(' '));
const isBound = (name: string, value: string) =>
  ['pidfile', 'vnc', 'D'].includes(name) ||
  /(^|,)(unix|tcp|telnet|websocket|udp|file):|(^|,)(path|port|logfile)=/.test(value);

/** Warns of sockets and files that all clones would open. */
export function warnOfShared(clones: readonly (readonly string[])[]): void {
  const [first = [], second = []] = clones;
  const others = new Set(parseOptions(second).map(({ name, value }) => `${name} ${value}`));
  for (const { name, value = '' } of parseOptions(first)) {
    if (value === 'none' || !bound.has(name) || !isBound(name, value) || !others.has(`${name} ${value}`)) continue;
    warn(`all clones have -${name} ${value}: put {n} into it`);
  }
}
