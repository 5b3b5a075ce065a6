/** The --json output of each command has exactly the type that the package exports for it, according to tsc. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { fixturePath } from '../fixture-files.ts';
import { runCli } from '../run-cli.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const plain = fixturePath('pc-plain-10.0.bin');
const xbzrle = fixturePath('pc-xbzrle-10.0.bin');
const main = fixturePath('pc-multifd-zstd-zero-multifd-10.0.bin');
const channels = [0, 1].flatMap((i) => ['--channel', main.replace('.bin', `.channel-${i}.bin`)]);

let directory = '';
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'vmferry-json-types-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** The command lines, and the type of each output. OUT is a directory for each. */
const cases: [type: string, args: string[]][] = [
  ['InspectJson', ['inspect', '--hash', xbzrle]],
  ['InspectJson', ['inspect', main, ...channels]],
  ['InspectJson', ['inspect', '/dev/null']],
  ['InspectDevicesJson', ['inspect', '--devices', plain]],
  ['DeviceJson', ['inspect', '--device', 'cpu#0', plain]],
  ['DeviceJson', ['inspect', '--device', 'timer', plain]],
  ['VerifyJson', ['verify', xbzrle]],
  ['CheckJson', ['check', plain, '--against', xbzrle]],
  ['ExtractJson', ['extract', plain, '--all', 'OUT/all']],
  ['ExtractPhysicalJson', ['extract', plain, '--physical', '-o', 'OUT/raw']],
  ['ExtractPhysicalJson', ['extract', plain, '--elf', '-o', 'OUT/core']],
  ['ExtractDeviceJson', ['extract', plain, '--device', 'timer', '-o', 'OUT/timer.json']],
  ['ConvertJson', ['convert', plain, 'OUT/a.mapped-ram']],
  ['ConvertJson', ['convert', plain, 'OUT/b.stream', '--base', plain]],
  ['ConvertJson', ['convert', plain, 'OUT/set', '--to', 'multifd']],
  ['ExtractJson', ['convert', plain, 'OUT/c.raw', '--block', 'pc.ram']],
  ['ConvertChangesJson', ['convert', 'OUT/a.mapped-ram', 'OUT/d', '--only-changed-from', plain]],
  ['MergeJson', ['merge', plain, 'OUT/d', 'OUT/e.mapped-ram']],
  ['ResumeMapJson', ['resume', 'OUT/a.mapped-ram', '--map', '--stream', 'OUT/small']],
  ['DiffJson', ['diff', plain, xbzrle]],
  ['ReadJson', ['read', plain]],
  ['SearchJson', ['search', plain, '--hex', '00', '--max', '1', '--context', '4']],
  ['SearchCountJson', ['search', plain, 'BIOS', '--count']],
  ['EstimateJson', ['estimate', plain]],
  ['EstimateJson', ['estimate', plain, xbzrle, '--interval', '10']],
];
const errors: string[][] = [
  ['inspect', '--nope', 'x'],
  ['extract', '/dev/null', '--all', 'OUT/none'],
];

it('has the exported types, and no other fields', async () => {
  const lines = ['import type * as Json from "vmferry";'];
  for (const [type, args] of cases) {
    const { stdout, stderr } = await runCli([...args.map((word) => word.replace('OUT', directory)), '--json']);
    expect(() => JSON.parse(stdout), `${args.join(' ')}: ${stderr}`).not.toThrow();
    lines.push(`// ${args.join(' ')}`, `export const c${lines.length} = ${stdout.trim()} satisfies Json.${type};`);
  }
  for (const args of errors) {
    const { stderr } = await runCli([...args.map((word) => word.replace('OUT', directory)), '--json']);
    lines.push(`export const e${lines.length} = ${stderr.trim()} satisfies Json.ErrorJson;`);
  }
  writeFileSync(join(directory, 'outputs.ts'), `${lines.join('\n')}\n`);
  expect(problems('outputs.ts')).toEqual([]);
  // The check itself notices a field that the type lacks, and a missing field.
  const wrong = ['{ jsonVersion: 1, count: 1, more: 1 }', '{ jsonVersion: 1 }', '{ count: 1 }'];
  writeFileSync(
    join(directory, 'wrong.ts'),
    `import type * as Json from "vmferry";\n${wrong.map((text, i) => `export const w${i} = ${text} satisfies Json.SearchCountJson;`).join('\n')}\n`,
  );
  expect(problems('wrong.ts')).toHaveLength(wrong.length);
});

/** The compiler's errors in a file that uses the built declarations. */
function problems(name: string): string[] {
  const program = ts.createProgram([join(directory, name)], {
    ...{ target: ts.ScriptTarget.ES2023, module: ts.ModuleKind.ESNext, strict: true, noEmit: true, types: [] },
    ...{ moduleResolution: ts.ModuleResolutionKind.Bundler, exactOptionalPropertyTypes: true, skipLibCheck: true },
    paths: { vmferry: [join(root, 'dist/index.d.ts')] },
  });
  return ts.getPreEmitDiagnostics(program).map(({ messageText, file, start = 0 }) => {
    const line = file === undefined ? '' : file.text.slice(0, start).split('\n').length;
    return `${line}: ${ts.flattenDiagnosticMessageText(messageText, ' ')}`;
  });
}
