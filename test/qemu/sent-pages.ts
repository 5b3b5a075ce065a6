/**
 * A migration with XBZRLE, page by page in real QEMU's order: from the stream it wrote, and from its traces, which also
 * name the pages that it examined and did not send.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { open, PageKind } from '../../src/node.ts';
import { applyDelta } from '../oracle/xbzrle.ts';
import { fillStripes, type Machine, PAGE, pagesOfOurs, startMachine } from './machine.ts';
import { findRamAddresses } from './truth.ts';
import { waitForFile } from './wait-until.ts';
import { migrateInPasses, type Workload } from './workload.ts';

/** A page's place: its block number and page number. */
interface At {
  block: number;
  page: number;
}

/** A page that QEMU sent, or skipped because it was unchanged. */
export interface SentPage extends At {
  /** Its content. */
  content: Uint8Array;
  /** The record that was sent; undefined for none. */
  record: { kind: PageKind; payload: Uint8Array } | undefined;
  /** Number of its section. */
  section: number;
  /** Bitmap syncs so far. */
  generation: number;
  isFirstRound: boolean;
  isLastStage: boolean;
}

export interface SentRun {
  blocks: { idstr: string; length: number; ramAddress: number }[];
  pages: SentPage[];
  /** Ends of bitmap syncs, in ms, and the number of pages examined before each. */
  syncs: { at: number; pages: number }[];
  /** As query-migrate reports it. */
  statistics: Record<string, number>;
}

export type SentOptions = Machine & { cacheSize?: number; workload: Workload; parameters?: Record<string, unknown> };

const traced = ['ram_save_page', 'migration_bitmap_sync_end', 'savevm_section_start', 'savevm_section_end'];

/** Arguments that a QEMU must be started with. */
const traceArgs = [...traced.flatMap((name) => ['-trace', `enable=${name}`]), '-msg', 'timestamp=on'];

/** Migrates through a pipe into a file, with XBZRLE, while the guest dirties its pages. */
export async function sendWithXbzrle({ cacheSize, workload, parameters, ...machine }: SentOptions): Promise<SentRun> {
  const running = await startMachine({ ...machine, args: [...(machine.args ?? []), ...traceArgs] });
  const { qemu, guest } = running;
  await using _qemu = qemu;
  const ours = pagesOfOurs(machine);
  await fillStripes(running, ours);
  await qemu.setCapabilities(['xbzrle']);
  const file = join(qemu.dir, 'capture');
  const info = await migrateInPasses(
    qemu,
    guest!,
    `exec:cat > '${file}.part' && mv '${file}.part' '${file}'`,
    workload,
    ours,
    {
      ...(cacheSize === undefined ? {} : { 'xbzrle-cache-size': cacheSize }),
      ...parameters,
    },
  );
  guest!.close();
  const addresses = await findRamAddresses(qemu);
  await waitForFile(file);
  const stream: Uint8Array = readFileSync(file);
  await qemu.quit();
  const traces = readTraces(readFileSync(join(qemu.dir, 'trace'), 'latin1'));
  return { ...(await readPages(stream, traces, addresses)), statistics: info['xbzrle-cache'] ?? {} };
}

interface Traces {
  /** For each section of RAM, its nonzero pages, and the number of syncs until its end. */
  sections: { pages: { idstr: string; page: number }[]; generation: number }[];
  /** Ends of syncs, and the number of sections before each. */
  syncs: { at: number; sections: number }[];
}

/** A line of the log is `pid@seconds:event arguments`. */
function readTraces(text: string): Traces {
  // The START section is not traced, and has no pages.
  const sections: Traces['sections'] = [{ pages: [], generation: 1 }];
  const syncs: Traces['syncs'] = [];
  let open: Traces['sections'][number] | undefined;
  for (const [, seconds, event, rest = ''] of text.matchAll(/^\d+@([\d.]+):(\w+) (.*)$/gm)) {
    if (event === 'savevm_section_start' && rest.startsWith('ram,')) {
      open = { pages: [], generation: 0 };
      sections.push(open);
    } else if (event === 'savevm_section_end' && open) {
      open.generation = syncs.length;
      open = undefined;
    } else if (event === 'migration_bitmap_sync_end') {
      syncs.push({ at: Number(seconds) * 1000, sections: sections.length });
    } else if (event === 'ram_save_page') {
      const [, idstr, offset] = /^(\S+): offset: 0x([0-9a-f]+)/.exec(rest)!;
      open!.pages.push({ idstr: idstr!, page: parseInt(offset!, 16) / PAGE });
    }
  }
  return { sections, syncs };
}

type PlacedRecord = At & NonNullable<SentPage['record']>;

/** The blocks, and the records of RAM section by section. */
async function readRecords(stream: Uint8Array, addresses: Map<string, number>) {
  const file = await open(stream);
  const blocks: SentRun['blocks'] = [];
  const sections: PlacedRecord[][] = [];
  for await (const item of file.flow()) {
    if (item.kind === 'section' && item.section.name === 'ram') sections.push([]);
    else if (item.kind === 'block') {
      const { idstr, usedLength } = item.block;
      blocks.push({ idstr, length: usedLength, ramAddress: addresses.get(idstr)! });
    } else if (item.kind === 'pages') {
      const { batch, block } = item;
      for (let i = 0; i < batch.count; i++) {
        const payload = file.kernel.bytes.slice(batch.data[i], batch.data[i]! + batch.length[i]!);
        sections.at(-1)!.push({ block: block.index, page: batch.page[i]!, kind: batch.kind[i] as PageKind, payload });
      }
    }
  }
  await file.close();
  return { blocks, sections };
}

/** A page's place in scan order. */
const place = ({ block, page }: At) => block * 2 ** 32 + page;

/** Merges the stream with the pages that only the traces show. */
async function readPages(
  stream: Uint8Array,
  traces: Traces,
  addresses: Map<string, number>,
): Promise<Omit<SentRun, 'statistics'>> {
  const { blocks, sections } = await readRecords(stream, addresses);
  if (sections.length !== traces.sections.length)
    throw new Error(`the stream has ${sections.length} sections of RAM, the traces ${traces.sections.length}`);
  const contents = blocks.map(({ length }) => new Uint8Array(length));
  const indexOf = new Map(blocks.map(({ idstr }, index) => [idstr, index]));
  const pages: SentPage[] = [];
  const counts: number[] = [0];
  let isFirstRound = true;
  let latest = -1;
  for (const [section, { pages: traced, generation }] of traces.sections.entries()) {
    const records = sections[section]!;
    const looked = traced.map(({ idstr, page }) => ({ block: indexOf.get(idstr)!, page }));
    const sent = new Set(records.filter(({ kind }) => kind !== PageKind.zero).map(place));
    const push = (at: At, record: SentPage['record']) => {
      if (place(at) <= latest) isFirstRound = false;
      latest = place(at);
      const content = contents[at.block]!.subarray(at.page * PAGE, (at.page + 1) * PAGE);
      if (record?.kind === PageKind.data) content.set(record.payload);
      if (record?.kind === PageKind.zero) content.fill(0);
      if (record?.kind === PageKind.delta) applyDelta(content, record.payload, 0);
      const isLastStage = section === sections.length - 1;
      pages.push({ ...at, content: content.slice(), record, section, generation, isFirstRound, isLastStage });
    };
    let next = 0;
    // An examined page that was not sent comes before a zero page if the scan meets it first.
    const passOver = (until: (at: At) => boolean) => {
      while (next < looked.length && !until(looked[next]!)) push(looked[next++]!, undefined);
    };
    for (const record of records) {
      if (record.kind === PageKind.zero) {
        passOver((at) => sent.has(place(at)) || place(at) > place(record) || place(at) <= latest);
      } else {
        passOver((at) => place(at) === place(record));
        if (next++ === looked.length) throw new Error(`page ${record.page} was sent but never examined`);
      }
      push(record, record);
    }
    passOver(() => false);
    counts.push(pages.length);
  }
  return { blocks, pages, syncs: traces.syncs.map(({ at, sections: before }) => ({ at, pages: counts[before]! })) };
}
