import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import {
  failureRemedies,
  findingRemedies,
  type Remedy,
  reasonRemedies,
  remedyFor,
  remedyOf,
} from '../../../src/demo/page/remedies.ts';
import { type FindingCode, findingCodes } from '../../../src/vm/migration-error.ts';
import { expectNoCommandLine } from './page-words.ts';

const all: [string, Remedy][] = [
  ...Object.entries(failureRemedies),
  ...Object.entries(findingRemedies),
  ...Object.entries(reasonRemedies),
];

/** Words of a text that ask the user for something that the page has a button for. */
const promises: [words: RegExp, actions: NonNullable<Remedy['action']>[]][] = [
  [/\b(choose|copy) (it|the files?) again/i, ['choose', 'sections']],
  [/\bopen (the channels|both|every channel|the capture)/i, ['add', 'choose']],
  [/together with/i, ['add', 'choose']],
  [/try again/i, ['retry']],
  [/(reload|load) the page/i, ['reload']],
  [/in the list/i, ['sections']],
];

describe('the remedies of the page', () => {
  it.each(Object.keys(findingCodes) as FindingCode[])('has one for %s', (code) => {
    expect(remedyFor(code, undefined).text).toMatch(/^[A-Zl].*\.$/);
  });

  it.each(all)('has whole sentences, and a button with a label or none: %s', (_, { text, action, label }) => {
    expect(text).toMatch(/^[A-Zl].*\.$/);
    expect(label === undefined).toBe(action === undefined);
    if (label !== undefined) expect(label).toMatch(/^[A-Z][a-z]/);
  });

  it.each(all)('names no command, option or argument of the command line: %s', (_, { text, label = '' }) => {
    expectNoCommandLine(text);
    expectNoCommandLine(label);
  });

  it.each(all)('has a button for what its text asks for: %s', (_, { text, action }) => {
    for (const [words, actions] of promises) if (words.test(text)) expect(actions).toContain(action);
  });

  it.each(Object.entries(findingCodes))('leads on from an error: %s', (code, [severity]) => {
    if (severity === 'error') expect(findingRemedies[code as FindingCode].action).toBeDefined();
  });

  it('is about the reason of a code, if there is one', () => {
    const code = 'not-a-migration-stream';
    expect(remedyOf({ kind: 'bad-input', code })?.label).toBe('Choose another file');
    expect(remedyOf({ kind: 'bad-input', code, reason: 'multifd-channel' })?.label).toBe('Add its main stream');
    expect(remedyOf({ kind: 'unreadable' })?.label).toBe('Choose the file again');
  });
});

describe('the texts that the library brings to the page', () => {
  const source = fileURLToPath(new URL('../../../src/', import.meta.url));
  const files = readdirSync(source, { recursive: true, encoding: 'utf8' })
    .filter((path) => /\.tsx?$/.test(path) && !/^(cli|demo\/worker)\//.test(path) && !path.includes('/node/'))
    // The page has no migration URIs.
    .filter((path) => path !== 'words/command-line.ts' && path !== 'io/migration-address.ts');
  const comments = /\/\*[\s\S]*?\*\/|(^|\s)\/\/.*$/gm;
  const cssVariables = /--(map|scale|mono|panel|text|on-map)\b/g;

  it('finds them', () => {
    expect(files.length).toBeGreaterThan(200);
  });

  it.each(files)('names no option of the command line: %s', (path) => {
    const code = readFileSync(source + path, 'utf8')
      .replace(comments, '')
      .replace(cssVariables, '');
    const texts = code.match(/'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"|`(?:[^`\\]|\\.)*`/g) ?? [];
    for (const text of texts) expect(text).not.toMatch(/(^|[\s(`"'])--[a-z]|,offset=/);
  });
});
