/** The gate's own checks: they find what they are for. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

const root = fileURLToPath(new URL('../../', import.meta.url));

let folder = '';
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'vmferry-checks-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const run = (script: string, ...paths: string[]) => {
  const { status, stderr } = spawnSync(process.execPath, [join(root, 'scripts', script), ...paths], {
    encoding: 'utf8',
  });
  return { status, lines: stderr.trimEnd().split('\n') };
};

const save = (name: string, text: string): string => {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
};

interface BannedWords {
  pattern: RegExp;
  instead: string;
  example: string;
}

describe('check-words', () => {
  test('finds every banned wording', async () => {
    const list: string = new URL('../../scripts/banned-words.mjs', import.meta.url).href;
    const { bannedWords } = (await import(list)) as { bannedWords: BannedWords[] };
    expect(bannedWords.length).toBeGreaterThan(15);
    const { status, lines } = run(
      'check-words.mjs',
      save('examples.md', bannedWords.map(({ example }) => `${example}\n`).join('')),
    );
    expect(status).toBe(1);
    for (const [index, { pattern, instead }] of bannedWords.entries()) {
      expect(
        lines.filter((line) => line.includes(`examples.md:${index + 1}: `) && line.endsWith(`write ${instead}`)),
        `${pattern}`,
      ).toHaveLength(1);
    }
  });

  test('finds wording that crosses lines of a comment', () => {
    const path = save('crossing.ts', '/**\n * Reads 16 MiB unless\n * told.\n */\nexport const size = 16;\n');
    expect(run('check-words.mjs', path)).toMatchObject({
      status: 1,
      lines: [expect.stringContaining('crossing.ts:2: '), '1 in all'],
    });
  });

  test('accepts plain sentences', () => {
    const text =
      'There is no such block. It is no longer there. Three channels, one of which is idle, go through a pipe.\n';
    expect(run('check-words.mjs', save('plain.md', text)).status).toBe(0);
  });
});

describe('check-function-lines', () => {
  const functionOf = (lines: number) => `function long() {\n${'  work();\n'.repeat(lines - 2)}}\n`;

  test('finds a function of 71 lines and accepts one of 70', () => {
    const path = save('long.ts', `\n${functionOf(71)}`);
    expect(run('check-function-lines.mjs', path)).toEqual({
      status: 1,
      lines: [expect.stringContaining('long.ts:2: long has 71 lines; the limit is 70')],
    });
    expect(run('check-function-lines.mjs', save('short.ts', functionOf(70))).status).toBe(0);
  });
});
