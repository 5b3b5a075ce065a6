/** The answers of a destination, over a line in memory. */
import { expect, it } from 'vitest';
import type { Connection } from '../../src/io/connection.ts';
import { connectionPair } from '../../src/io/web-connection.ts';
import { Answers } from '../../src/migrate/answers.ts';
import type { Section } from '../../src/vm/flow.ts';
import { CommandCode } from '../../src/wire/command.ts';

/** A return path that a source of QEMU 7.2, or of a newer one with that machine type, has opened. */
async function opened(): Promise<{ answers: Answers; source: Connection }> {
  const [here, source] = connectionPair();
  const answers = new Answers(here, {});
  const command = { code: CommandCode.openReturnPath, name: 'OPEN_RETURN_PATH', offset: 0, payload: new Uint8Array() };
  await answers.takeCommand(command, { machine: 'pc-i440fx-7.2', capabilities: [] });
  return { answers, source };
}

const section = (name: string, kind: Section['kind']): Section => ({
  ...{ kind, id: 2, name, instanceId: 0, versionId: 4, offset: 0, length: 18, packaged: false },
});
const acknowledgement = '00070000';
const shut = '0001000400000000';

/** What the source has heard once the last word was said. */
async function heard(answers: Answers, source: Connection): Promise<string> {
  const said = answers.shut(0);
  let text = '';
  const bytes = new Uint8Array(64);
  while (!text.endsWith(shut)) {
    const count = await source.read(bytes, text.length / 2);
    text += Buffer.from(bytes.subarray(0, count)).toString('hex');
  }
  await said;
  return text.slice(0, -shut.length);
}

it('a source that sends one empty part of RAM after another waits for the word to switch over, and gets it once', async () => {
  const { answers, source } = await opened();
  for (let i = 0; i < 30; i++) await answers.takeSection(section('ram', 'part'));
  expect(await heard(answers, source)).toBe(acknowledgement);
});

it('a source whose pages come on multifd channels does not wait', async () => {
  const { answers, source } = await opened();
  for (let i = 0; i < 30; i++) {
    answers.takePages();
    await answers.takeSection(section('ram', 'part'));
  }
  expect(await heard(answers, source)).toBe('');
});

it('a source with dirty bitmaps does not wait: it does not know yet how fast the line is', async () => {
  const { answers, source } = await opened();
  await answers.takeSection(section('dirty-bitmap', 'start'));
  for (let i = 0; i < 30; i++) await answers.takeSection(section('ram', 'part'));
  expect(await heard(answers, source)).toBe('');
});
