/** The package as built (`npm run build`), as its users see it. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { someOf } from '../limits.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));

/** The imports of a module: specifiers of static and dynamic imports, and of re-exports; not require or define. */
const importsOf = (path: string): string[] =>
  ts.preProcessFile(readFileSync(path, 'utf8'), true, false).importedFiles.map(({ fileName }) => fileName);

/** All modules that a built file reaches through relative imports, and the other specifiers that it needs. */
function graphOf(entry: string): { modules: string[]; externals: string[] } {
  const modules = new Set<string>();
  const externals = new Set<string>();
  const visit = (path: string): void => {
    if (modules.has(path)) return;
    modules.add(path);
    for (const specifier of importsOf(path)) {
      if (specifier.startsWith('.')) visit(resolve(dirname(path), specifier));
      else externals.add(specifier);
    }
  };
  visit(join(root, entry));
  return { modules: [...modules].map((path) => relative(root, path)), externals: [...externals].sort() };
}

describe('the portable build', () => {
  it('imports nothing: neither modules of Node nor packages', () => {
    const { modules, externals } = graphOf('dist/index.js');
    expect(externals).toEqual([]);
    expect(modules.length).toBeGreaterThan(1);
  });

  it('does not mention anything that only Node has', () => {
    for (const path of graphOf('dist/index.js').modules) {
      expect(readFileSync(join(root, path), 'utf8'), path).not.toMatch(/\bBuffer\.|\bprocess\.|\brequire\(|["']node:/);
    }
  });

  it('is shared by the build for Node', () => {
    const { modules, externals } = graphOf('dist/node.js');
    // koffi is optional: without it, what is a hole in a file is not known.
    expect(externals.filter((name) => !name.startsWith('node:'))).toEqual(['koffi']);
    const shared = graphOf('dist/index.js').modules.filter((path) => path !== 'dist/index.js');
    expect(modules).toEqual(expect.arrayContaining(shared));
  });

  it('of the command line needs exactly the dependencies of the package, one of them optional', () => {
    const packages = graphOf('dist/cli.js').externals.filter((name) => !name.startsWith('node:'));
    const names = new Set(
      packages.map((name) =>
        name
          .split('/')
          .slice(0, name.startsWith('@') ? 2 : 1)
          .join('/'),
      ),
    );
    const { dependencies, peerDependencies } = manifest;
    expect([...names].sort()).toEqual(Object.keys({ ...dependencies, ...peerDependencies }).sort());
    expect(manifest.peerDependenciesMeta).toEqual({ koffi: { optional: true } });
    expect(readFileSync(join(root, 'dist/cli.js'), 'utf8')).toMatch(/^#!\/usr\/bin\/env node\n/);
  });
});

describe('the package', () => {
  it('ships what its exports name, and neither sources nor tests', () => {
    const [{ files }] = JSON.parse(
      execFileSync('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], { cwd: root, encoding: 'utf8' }),
    );
    const paths: string[] = files.map(({ path }: { path: string }) => path);
    const named = JSON.stringify([manifest.exports, manifest.bin]).match(/dist\/[^"]+/g) ?? [];
    expect(paths).toEqual(expect.arrayContaining([...named, 'LICENSE', 'README.md']));
    expect(paths.filter((path) => /^(src|test|bench|assembly)\//.test(path))).toEqual([]);
  });

  it('has the raw kernels, which export what the module loader expects', async () => {
    const exports: string[][] = [];
    for (const variant of ['simd', 'scalar']) {
      const path = createRequire(join(root, 'package.json')).resolve(`vmferry/kernel.${variant}.wasm`);
      const module = await WebAssembly.compile(readFileSync(path));
      exports.push(
        WebAssembly.Module.exports(module)
          .map(({ name, kind }) => `${kind} ${name}`)
          .sort(),
      );
      expect(WebAssembly.Module.imports(module)).toEqual([{ module: 'env', name: 'memory', kind: 'memory' }]);
    }
    expect(exports[0]).toEqual(exports[1]);
    expect(exports[0]).toEqual(
      expect.arrayContaining(
        ['zeroScan', 'zeroScanGather', 'xbzrleDecode', 'xbzrleCheck', 'xbzrleDecodeBatch', 'xbzrleCheckBatch'].map(
          (name) => `function ${name}`,
        ),
      ),
    );
  });
});

describe('a project that installed the package', () => {
  let project = '';
  beforeAll(() => {
    project = mkdtempSync(join(tmpdir(), 'vmferry-consumer-'));
    mkdirSync(join(project, 'node_modules'));
    symlinkSync(root, join(project, 'node_modules', 'vmferry'));
    writeFileSync(join(project, 'package.json'), '{ "type": "module" }');
  });
  afterAll(() => rmSync(project, { recursive: true, force: true }));

  const runModule = (source: string) => {
    writeFileSync(join(project, 'main.js'), source);
    return execFileSync(process.execPath, ['main.js'], { cwd: project, encoding: 'utf8' }).trim();
  };

  it.each([
    ['vmferry', true],
    ['vmferry/node', true],
    ['vmferry/universal', false],
  ])('imports %s, with files: %s', (name, hasFiles) => {
    const source = `import * as it from '${name}';
      const found = ['open', 'inspect', 'verify', 'extractBlocks', 'settle', 'loadKernel', 'openSource', 'OutputFile'];
      console.log(found.filter((each) => typeof it[each] === 'function').join(' '));`;
    const portable = 'open inspect verify extractBlocks settle loadKernel';
    expect(runModule(source)).toBe(hasFiles ? `${portable} openSource OutputFile` : portable);
  });

  it('gets the build for Node in Node, and the portable one in a bundler', () => {
    const resolved = (moduleResolution: ts.ModuleResolutionKind, module: ts.ModuleKind) =>
      ts.resolveModuleName(
        'vmferry',
        join(project, 'main.ts'),
        { module, moduleResolution },
        ts.sys,
        undefined,
        undefined,
        ts.ModuleKind.ESNext,
      ).resolvedModule?.resolvedFileName;
    expect(resolved(ts.ModuleResolutionKind.Node16, ts.ModuleKind.Node16)).toBe(join(root, 'dist/node.d.ts'));
    expect(resolved(ts.ModuleResolutionKind.Bundler, ts.ModuleKind.ESNext)).toBe(join(root, 'dist/index.d.ts'));
    expect(runModule(`console.log(import.meta.resolve('vmferry'));`)).toMatch(/dist\/node.js$/);
  });

  it('reads a stream', () => {
    const output = runModule(`import { open, inspect, verify } from 'vmferry';
      const file = await open('${join(root, 'test/fixtures/none-plain-10.0.bin')}');
      const { inspection } = await inspect(file);
      const { ok } = await verify(file);
      await file.close();
      console.log(inspection.machine, inspection.ram.blocks.map(({ idstr }) => idstr).join(), ok);`);
    expect(output).toBe('none ram true');
  });

  const resolutions = [
    ['bundler', 'esnext'],
    ['node16', 'node16'],
    ['nodenext', 'nodenext'],
  ] as const;
  it.each(someOf(resolutions, 3, 1))('type-checks under moduleResolution %s', (moduleResolution, module) => {
    writeFileSync(
      join(project, 'main.ts'),
      `import { type FlowItem, type Inspection, inspect, MemoryFile, MigrationError, open } from 'vmferry';
      import { appendTo, ByteWriter, encodePageRecord, type Guest, type PageBitmap, PageKind, pipeTo, RawRam } from 'vmferry';
      import { type SavedDevices, writeGuest } from 'vmferry';
      import { OutputFile, open as openPath } from 'vmferry/node';
      import { extractBlocks, type FindingCode, findingCodes } from 'vmferry/universal';

      export async function show(input: Blob | Uint8Array): Promise<Inspection> {
        const file = await open(input, { offset: 0 });
        const { inspection } = await inspect(file);
        for await (const item of file.flow({ read: 'bitmaps' })) {
          if (item.kind === 'pages') console.log(item.block.idstr, item.batch.count);
        }
        const blocks = await extractBlocks(file, (block) => new MemoryFile(block.idstr));
        console.log(blocks.map(({ idstr, length }) => idstr.length + length));
        return inspection;
      }
      export async function fromPath(path: string): Promise<void> {
        const output = new OutputFile(path);
        await (await openPath(path)).close();
        await output.abandon();
      }
      export const codeOf = (error: unknown): FindingCode | undefined =>
        error instanceof MigrationError ? error.code : undefined;
      export const meaning: string = findingCodes['bad-delta'][1];
      export class Guest1 implements Guest {
        readonly configuration = { machine: 'none', capabilities: [] };
        readonly ram = new RawRam([{ idstr: 'ram', source: new MemoryFile('ram', new Uint8Array(1 << 20)) }]);
        readonly blocks = this.ram.blocks.map((block) => ({ ...block, ramAddress: 0 }));
        syncDirty([dirty]: readonly PageBitmap[]): void {
          dirty?.set(1);
        }
        stop(): void {}
        saveDevices(): SavedDevices {
          return { devices: [{ kind: 'full', id: 2, name: 'd', instanceId: 0, versionId: 1, data: new Uint8Array(4) }] };
        }
      }
      export async function write(stream: WritableStream<Uint8Array>, store: MemoryFile): Promise<number> {
        await writeGuest(new Guest1(), appendTo(store), { xbzrle: true });
        // @ts-expect-error: a store is not a sink
        await writeGuest(new Guest1(), store);
        const { length } = await writeGuest(new Guest1(), pipeTo(stream));
        const out = new ByteWriter();
        const [block] = new Guest1().blocks;
        if (block !== undefined) encodePageRecord(out, { block, page: 0, kind: PageKind.zero });
        return length + out.length;
      }
      // @ts-expect-error: an item has one of the kinds that there are
      export const wrong: FlowItem['kind'] = 'page';
      `,
    );
    const compilerOptions = {
      module,
      moduleResolution,
      target: 'es2022',
      lib: ['es2023', 'dom', 'dom.iterable', 'esnext.disposable'],
      types: [],
      strict: true,
      exactOptionalPropertyTypes: true,
      noUncheckedIndexedAccess: true,
      noEmit: true,
      skipLibCheck: false,
    };
    writeFileSync(join(project, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['main.ts'] }));
    const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc');
    const { status, stdout } = spawnSync(process.execPath, [tsc, '-p', '.'], { cwd: project, encoding: 'utf8' });
    expect(status, stdout).toBe(0);
  });
});
