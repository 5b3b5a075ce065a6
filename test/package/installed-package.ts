/** A project with the package installed: the content of `npm pack`'s tarball, unpacked into its node_modules. */
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('../../', import.meta.url));

export interface Project {
  /** The directory of the project. */
  readonly path: string;
  /** The installed package. */
  readonly installed: string;
  remove(): void;
}

/** Makes a project with the package as built, its dependency, Node's types, and a copy of the samples. */
export function installPackage(): Project {
  const path = mkdtempSync(join(tmpdir(), 'vmferry-project-'));
  const modules = join(path, 'node_modules');
  const installed = join(modules, 'vmferry');
  mkdirSync(join(modules, '@types'), { recursive: true });
  const packed = execFileSync('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', path], {
    cwd: root,
    encoding: 'utf8',
  });
  const [{ filename }] = JSON.parse(packed) as [{ filename: string }];
  mkdirSync(installed);
  execFileSync('tar', ['-xzf', join(path, filename), '-C', installed, '--strip-components=1']);
  for (const name of ['commander', '@types/node', 'undici-types']) {
    symlinkSync(join(root, 'node_modules', name), join(modules, name));
  }
  cpSync(join(installed, 'samples'), join(path, 'samples'), { recursive: true });
  writeFileSync(join(path, 'package.json'), '{ "type": "module" }');
  return { path, installed, remove: () => rmSync(path, { recursive: true, force: true }) };
}
