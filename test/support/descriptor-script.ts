/** What a client says with descriptors, for vmferry and for real QEMUs, whose answers must be the same. */
import { readdirSync, readlinkSync } from 'node:fs';
import { DescriptorClient } from './descriptor-client.ts';

/** Sockets of two monitors, files to pass, and how many descriptors of the first one the process has. */
export interface DescriptorTarget {
  first: string;
  second: string;
  /** Open for reading and for writing. */
  reading: number;
  writing: number;
  /** How often the process has the two files open. */
  held(): number;
}

/** Plays it. Returns the answers in order, with the numbers of descriptors taken out. */
export async function playDescriptors(target: DescriptorTarget): Promise<unknown[]> {
  const { reading, writing } = target;
  const answers: unknown[] = [];
  const note = (answer: unknown) =>
    answers.push(JSON.parse(JSON.stringify(answer), (key, value) => (key === 'fd' ? 0 : value)));
  const client = await DescriptorClient.connect(target.first, [reading, writing]);
  const say = async (command: string, given: Record<string, unknown>, ...passed: number[]) =>
    note(await client.execute(command, given, ...passed));
  const held = () => note(`held: ${target.held()}`);

  await say('getfd', { fdname: 'x' });
  await say('add-fd', { 'fdset-id': 3 });
  await say('closefd', { fdname: 'x' });
  await say('remove-fd', { 'fdset-id': 7 });
  await say('remove-fd', { 'fdset-id': 7, fd: 3 });
  await say('query-fdsets', {});
  held();
  await say('getfd', { fdname: '9x' }, reading);
  held();
  await say('getfd', { fdname: 'a' }, reading);
  await say('getfd', { fdname: 'a' }, writing);
  await say('getfd', { fdname: 'many' }, reading, writing, reading);
  held();
  // What comes with another command waits for the next one that takes it.
  await say('query-name', {}, reading);
  await say('getfd', { fdname: 'late' });
  await say('getfd', { fdname: 'later' });
  held();
  await say('closefd', { fdname: 'late' });
  await say('closefd', { fdname: 'many' });
  await say('closefd', { fdname: 'many' });
  held();

  await say('add-fd', {}, reading);
  await say('add-fd', { opaque: 'note' }, reading);
  await say('add-fd', { 'fdset-id': 5, opaque: 'five' }, writing);
  await say('add-fd', { 'fdset-id': 5 }, reading);
  await say('add-fd', { 'fdset-id': -1 }, reading);
  await say('add-fd', { 'fdset-id': 0, opaque: 'again' }, reading);
  await say('add-fd', {}, reading);
  await say('query-fdsets', {});
  await say('remove-fd', { 'fdset-id': 5, fd: 9999 });
  const sets = (await client.execute('query-fdsets')) as { 'fdset-id': number; fds: { fd: number }[] }[];
  await say('remove-fd', { 'fdset-id': 5, fd: sets.find((set) => set['fdset-id'] === 5)?.fds[0]?.fd });
  await say('query-fdsets', {});
  await say('remove-fd', { 'fdset-id': 5 });
  await say('query-fdsets', {});
  held();
  await say('stop', {});
  await say('remove-fd', { 'fdset-id': 2 });
  await say('query-fdsets', {});
  await say('cont', {});

  // A message in two pieces, and one in each of which a descriptor comes.
  client.send('{"execute": "getfd", "arguments":', [reading]);
  client.send('{"fdname": "split"}}');
  note(await client.answer());
  client.send('{"execute": "getfd", "arguments":');
  client.send('{"fdname": "split"}}', [writing]);
  note(await client.answer());
  await say('closefd', { fdname: 'split' });

  // Another monitor has its own names. Sets are the machine's.
  const other = await DescriptorClient.connect(target.second);
  note(await other.execute('closefd', { fdname: 'a' }));
  note(await other.execute('query-fdsets'));
  await client.execute('query-name', {}, reading);
  await client.leave();
  await other.leave();

  // When the next client of the second monitor is greeted, both have gone.
  await using _last = await DescriptorClient.connect(target.second);
  await using next = await DescriptorClient.connect(target.first);
  note(await next.execute('getfd', { fdname: 'of the client before' }));
  note(await next.execute('query-fdsets'));
  note(await next.execute('closefd', { fdname: 'a' }));
  held();
  return answers;
}

/** How often a process has one of the files open. */
export function heldBy(pid: number, files: readonly string[]): number {
  const directory = `/proc/${pid}/fd`;
  const linkOf = (fd: string) => {
    try {
      return readlinkSync(`${directory}/${fd}`);
    } catch {
      // It was closed meanwhile.
      return '';
    }
  };
  return readdirSync(directory).filter((fd) => files.includes(linkOf(fd))).length;
}
