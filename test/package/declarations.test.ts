/**
 * The type declarations compile in a strict project that has neither the DOM library nor Node's types. What may be absent in
 * them is undefined, never null.
 */
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { someOf } from '../limits.ts';
import { installPackage, type Project } from './installed-package.ts';

let project: Project;
beforeAll(() => {
  project = installPackage();
});
afterAll(() => project?.remove());

function compile(compilerOptions: Record<string, unknown>, source: string): { status: number | null; stdout: string } {
  writeFileSync(join(project.path, 'main.ts'), source);
  const options = {
    target: 'es2022',
    strict: true,
    exactOptionalPropertyTypes: true,
    noUncheckedIndexedAccess: true,
    skipLibCheck: false,
    noEmit: true,
    ...compilerOptions,
  };
  writeFileSync(join(project.path, 'tsconfig.json'), JSON.stringify({ compilerOptions: options, files: ['main.ts'] }));
  const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc');
  return spawnSync(process.execPath, [tsc, '-p', '.'], { cwd: project.path, encoding: 'utf8' });
}

const resolutions = [
  ['nodenext', 'nodenext'],
  ['bundler', 'esnext'],
] as const;
it.each(someOf(resolutions, 2, 1))(
  'they compile with ES2022 alone under moduleResolution %s',
  (moduleResolution, module) => {
    const { status, stdout } = compile(
      { moduleResolution, module, lib: ['es2022'], types: [] },
      `import * as main from 'vmferry';
    import * as node from 'vmferry/node';
    import * as universal from 'vmferry/universal';
    import * as kernel from 'vmferry/kernel';
    export const all = [main, node, universal, kernel];
    export async function machineOf(bytes: Uint8Array): Promise<string | null | undefined> {
      const file = await universal.open(bytes);
      const { inspection } = await universal.inspect(file);
      return inspection.machine;
    }
    export async function nameOf(scratch: universal.ScratchFile): Promise<string> {
      return (await scratch.finish('guest.raw')).name;
    }
    // @ts-expect-error: no source of bytes
    void universal.open(7);
    `,
    );
    expect(status, stdout).toBe(0);
  },
);

it('they accept and return the objects of the DOM', () => {
  const { status, stdout } = compile(
    { moduleResolution: 'bundler', module: 'esnext', lib: ['es2022', 'dom'], types: [] },
    `import { type HttpOptions, open, openOpfsScratch, pipeTo, type ScratchFile, watchSource, BlobSource } from 'vmferry';
    export async function read(blob: Blob, stream: ReadableStream<Uint8Array>, signal: AbortSignal): Promise<void> {
      await open(blob);
      await open(stream);
      await open(await fetch('http://localhost/'));
      await open(new URL('http://localhost/'));
      await open(await blob.arrayBuffer());
      await open(new DataView(new ArrayBuffer(8)));
      await open((async function* () { yield new Uint8Array(8); })(), { spool: 'always', spoolLimit: 1 << 20 });
      // @ts-expect-error: chunks of text
      await open((async function* () { yield 'text'; })());
      await open(watchSource(new BlobSource(blob), { signal }));
    }
    export const write = (stream: WritableStream<Uint8Array>) => pipeTo(stream);
    export const options: HttpOptions = { fetch };
    export const opfs = () => openOpfsScratch(navigator, 'session');
    export const finish = (scratch: ScratchFile): Promise<File> => scratch.finish('guest.raw');
    `,
  );
  expect(status, stdout).toBe(0);
});

it("they accept and return the objects of Node's types", () => {
  const { status, stdout } = compile(
    { module: 'nodenext', lib: ['es2022'], types: ['node'], skipLibCheck: true },
    `import { Blob } from 'node:buffer';
    import { createReadStream } from 'node:fs';
    import type { FileHandle } from 'node:fs/promises';
    import type { IncomingMessage } from 'node:http';
    import { Readable, Writable } from 'node:stream';
    import { ReadableStream, WritableStream } from 'node:stream/web';
    import { open, pipeTo, watchSource, BlobSource } from 'vmferry';
    export async function read(blob: Blob, stream: ReadableStream<Uint8Array>, signal: AbortSignal): Promise<void> {
      await open(blob);
      await open(stream);
      await open(Readable.toWeb(Readable.from([])));
      await open(createReadStream('guest.migration'), { channels: [new URL('file:///channel-0'), Buffer.alloc(8)] });
    }
    export async function readOthers(handle: FileHandle, message: IncomingMessage): Promise<void> {
      await open(handle);
      await open(message);
      await open(await fetch('http://localhost/'));
    }
    export async function watch(blob: Blob, signal: AbortSignal): Promise<void> {
      await open(watchSource(new BlobSource(blob), { signal }));
    }
    export const write = (stream: WritableStream<Uint8Array>, writable: Writable) => [pipeTo(stream), pipeTo(writable)];
    `,
  );
  expect(status, stdout).toBe(0);
});

/** The names of the declarations whose types contain null. */
function declarationsWithNull(text: string): string[] {
  const source = ts.createSourceFile('types.d.ts', text, ts.ScriptTarget.ES2022, true);
  const hasNull = (node: ts.Node): boolean =>
    node.kind === ts.SyntaxKind.NullKeyword || ts.forEachChild(node, hasNull) === true;
  return source.statements.filter(hasNull).map((statement) => {
    return (statement as Partial<ts.DeclarationStatement>).name?.getText() ?? statement.getText();
  });
}

it('they have null only where a platform gives it, for a NULL pointer, and in JSON, such as that of QMP', () => {
  const dist = fileURLToPath(new URL('../../dist/', import.meta.url));
  const files = readdirSync(dist).filter((name) => name.endsWith('.d.ts'));
  const found = files.flatMap((name) => declarationsWithNull(readFileSync(join(dist, name), 'utf8')));
  const ofPlatforms = ['NodeReadableLike', 'NodeWritable', 'ResponseLike'];
  const ofPointers = ['PlainValue', 'StateValue'];
  const ofQmp = ['JsonValue', 'MigrateSetParameters'];
  const expected = [...ofPointers, ...ofPlatforms, ...ofQmp].sort();
  expect(found.filter((name) => !name.endsWith('Json')).sort()).toEqual(expected);
  // The check itself finds a null deep in a type, and takes no comment for one.
  const other = 'interface Inside { a: { b: (string | null)[] } } /** null */ declare const text = "null";';
  expect(declarationsWithNull(other)).toEqual(['Inside']);
});
