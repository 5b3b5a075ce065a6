/**
 * `vmferry resume --map`: FILE is the guest's memory. Prints the QEMU arguments beside a small stream, or runs QEMU:
 *
 *     FILE ──┬── QEMU maps its pages ─────────────────→ guest memory, copy on write
 *            └── small stream ── OUT, or a descriptor ─→ -incoming
 */
import { resolve } from 'node:path';
import { appendTo } from '../../io/byte-source.ts';
import { OutputFile } from '../../io/node/output-file.ts';
import { resumeArguments } from '../../node.ts';
import type { MigrationFile } from '../../read/open.ts';
import type { ResumeMapJson } from '../../tasks/json.ts';
import { isMappable } from '../../tasks/resume/resume-arguments.ts';
import { shellLine } from '../../words/shell.ts';
import { UsageError } from '../exit-codes.ts';
import { openInput } from '../input.ts';
import { toJson } from '../json.ts';
import type { Live } from '../live/live-command.ts';
import { note } from '../messages.ts';
import { unlocked } from './guest-lock.ts';
import type { MapOptions } from './map-options.ts';
import { runOn } from './map-run.ts';
import { notMappable, reportStale } from './map-words.ts';
import { openCopy } from './private-file.ts';
import { isOld } from './run-qemu.ts';

/** Runs guests on FILE, or says how. */
export async function resumeMapped(
  location: string,
  [program, ...args]: readonly string[],
  options: MapOptions,
  live: Live,
): Promise<void> {
  // Beside the opening of FILE.
  const old = program === undefined ? Promise.resolve(false) : isOld(program);
  let file = await openInput(location, options);
  try {
    if (!isMappable(file)) throw new UsageError(notMappable(location, file, options));
    if (program !== undefined) return await runOn(location, file, [program, ...args], options, live, old);
    if (options.private === true) {
      await file.close();
      file = await openCopy(location, `${options.stream}.ram`, live);
    }
    await writeSmallStream(file, options.stream as string, options, live);
  } finally {
    await file.close();
  }
}

async function writeSmallStream(
  file: MigrationFile,
  path: string,
  options: MapOptions,
  { signal }: Live,
): Promise<void> {
  const { name } = file.input;
  const output = new OutputFile(path);
  try {
    const resume = await resumeArguments(file, {
      ...{ signal, path: resolve(name), incoming: `file:${resolve(path)}` },
      ...(options.block === undefined ? {} : { blocks: options.block }),
    });
    const written = await resume.writeStream(appendTo(output.file), { signal });
    await output.commit();
    const { arguments: words, mapped, machine } = resume;
    reportStale(name, written.stalePages);
    note(`QEMU 8.2 and later can run on ${name}. ${unlocked(name)}`);
    const own = mapped.filter(({ isDefault }) => !isDefault).map(({ id }) => id);
    if (own.length > 0) note(`the printed arguments take the place of your own -object with the id ${own.join(', ')}`);
    if (options.json === true) {
      const blocks = mapped.map(({ block, id, offset, length }) => ({ idstr: block.idstr, id, offset, length }));
      process.stdout.write(
        toJson<ResumeMapJson>({ source: name, machine, stream: path, ...written, arguments: words, blocks }),
      );
    } else process.stdout.write(`${shellLine(words)}\n`);
  } finally {
    await output.abandon();
  }
}
