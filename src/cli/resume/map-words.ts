/** What `vmferry resume --map` says. */
import { basename, dirname, join } from 'node:path';
import { isHttp } from '../../io/http-source.ts';
import { parseLocation } from '../../read/location.ts';
import type { MigrationFile } from '../../read/open.ts';
import type { Resume } from '../../tasks/resume/resume-arguments.ts';
import { shellLine } from '../../words/shell.ts';
import type { InputOptions } from '../input.ts';
import { note } from '../messages.ts';
import { plural } from '../print/format.ts';

/** What a name may end in that a mapped-ram file of the same guest does not keep. */
const suffix = /\.(migration|stream|save|bin|gz|xz|zst|bz2|lzo|qcow2|zip|mapped-ram)$/;

/** Why a FILE of another form cannot be mapped, with the command that makes one of this form. */
export function notMappable(location: string, { containers, format }: MigrationFile, options: InputOptions): string {
  const named = (flag: string, values: readonly string[] = []) => values.flatMap((value) => [flag, value]);
  const { path } = parseLocation(location.replace(/#.*$/, ''));
  const stem = path === '-' ? 'guest' : basename(path).replace(suffix, '');
  const isInside = format === 'mapped-ram' || containers.length > 0;
  const output = join(
    isHttp(path) ? '.' : dirname(path),
    `${stem}${format === 'mapped-ram' ? '.copy' : ''}.mapped-ram`,
  );
  const convert = [
    ...['vmferry', 'convert', location, output],
    ...[...named('--channel', options.channel), ...named('--resume-of', options.resumeOf)],
    ...[...named('--preempt', options.preempt), ...(options.discover === false ? ['--no-discover'] : [])],
  ];
  const what = isInside ? 'a mapped-ram file on this host, not inside another file' : 'a mapped-ram file';
  return `--map needs ${what}: make one with ${shellLine(convert)}`;
}

/** Why a QEMU cannot run on a file, and what it can run on. */
export function tooOld(
  location: string,
  { mapped }: Pick<Resume, 'mapped'>,
  { version, missing }: { version: string; missing: readonly string[] },
): string {
  const extract = mapped.map(({ block, id }) =>
    shellLine(['vmferry', 'extract', location, '--block', block.idstr, '-o', `${id}.raw`]),
  );
  const objects = mapped.map(
    ({ id, length }) => `-object memory-backend-file,id=${id},mem-path=${id}.raw,size=${length}`,
  );
  const lack = `QEMU ${version} cannot run on a mapped-ram file: its memory-backend-file has no ${missing.join(' and no ')}`;
  const way = `run ${extract.join('; ')}, then use ${objects.join(' ')} in place of the -object that --stream prints, and -incoming 'exec:cat OUT'`;
  return `${lack}. It can run on raw files: ${way}`;
}

/** Says how many pages are not what the bytes of the file show. */
export function reportStale(name: string, pages: number): void {
  if (pages > 0) note(`${plural(pages, 'page')} of ${name} hold stale bytes, which the small stream makes zero`);
}
