/**
 * Recognizes a multifd migration whose channels were not all given. Nothing in the stream says so directly:
 *
 *     no channels       the main stream has marks (since 8.1), or it sent no page with data
 *     some channels     the numbers of packets have gaps (since 9.0; `channels.ts` finds them). Before 9.0 they have
 *                       gaps, pages are absent, and no device explains it
 */
import { type PageBatch, PageKind } from '../kernel/page-batch.ts';
import type { FlowItem } from '../vm/flow.ts';
import { type Finding, makeFinding, type Place, type PlaceOrigin } from '../vm/migration-error.ts';
import { pageCount, type RamBlock } from '../vm/ram-block.ts';
import type { FlowChannels } from './open.ts';

/** The subsection of a balloon whose guest hints at free pages, which QEMU then does not send. */
const freePageHints = new TextEncoder().encode('virtio-balloon-device/free-page-report');

/** Watches a Flow for signs of channels that were not given. */
export class MissingChannels {
  readonly #blocks: RamBlock[] = [];
  /** Records of pages by the index of the block, until the first page with data. */
  readonly #sent: number[] = [];
  /** Offset of the first mark without channels. */
  #mark: number | undefined;
  #hasData = false;
  /** Pages were sent, or there is a processor, which cannot be without memory. */
  #hasVm = false;
  #hasMappedRam = false;
  /** Devices that explain absent pages: a balloon in all blocks, virtio-mem in blocks of its own. */
  #hasHints = false;
  #hasVirtioMem = false;

  /** Takes each item of the Flow. */
  take(item: FlowItem): void {
    switch (item.kind) {
      case 'block':
        this.#blocks.push(item.block);
        this.#hasMappedRam ||= item.block.mapped !== undefined;
        break;
      case 'pages':
        this.#hasVm = true;
        this.#notePages(item.block, item.batch);
        break;
      case 'unread-pages':
        this.#hasData = true;
        break;
      case 'sync':
        if (item.channels === 0) this.#mark ??= item.offset;
        break;
      case 'device':
        if (item.device.name === 'cpu') this.#hasVm = true;
        if (item.device.name.endsWith('virtio-balloon')) this.#hasHints ||= includes(item.device.data, freePageHints);
        if (item.device.name.includes('virtio-mem')) this.#hasVirtioMem = true;
        break;
      default:
    }
  }

  #notePages({ index }: RamBlock, batch: PageBatch): void {
    if (this.#hasData) return;
    this.#sent[index] = (this.#sent[index] ?? 0) + batch.count;
    for (let i = 0; i < batch.count; i++) this.#hasData ||= batch.kind[i] !== PageKind.zero;
  }

  /**
   * The finding for missing channels, at the end of the Flow. `absentOf` counts the pages of a block that were never
   * sent, except in blocks that the migration left out; undefined if that is not known.
   */
  finding(
    origin: PlaceOrigin,
    channels: Pick<FlowChannels, 'list' | 'numbers'>,
    absentOf: (block: RamBlock) => number | undefined,
  ): Finding | undefined {
    const place = { ...origin, offset: this.#mark ?? 0, section: 'ram' };
    if (this.#mark !== undefined) return channelsNotGiven(place);
    if (this.#hasMappedRam) return undefined;
    if (channels.list.length === 0) {
      // A block without any page may have been left out.
      const isLeftOut = (block: RamBlock) => this.#sent[block.index] === undefined && absentOf(block) === 0;
      const isShort = (block: RamBlock) => (this.#sent[block.index] ?? 0) < pageCount(block);
      const lacks = this.#blocks.some((block) => (isShort(block) && !isLeftOut(block)) || (absentOf(block) ?? 0) > 0);
      return this.#hasData || !this.#hasVm || !lacks ? undefined : makeFinding('missing-channels', onlyMain, place);
    }
    const { isReliable, hasGaps } = channels.numbers;
    if (isReliable || !hasGaps || this.#hasHints) return undefined;
    const mayLack = ({ idstr }: RamBlock) => !this.#hasVirtioMem || /(^|\.)ram$/.test(idstr);
    const block = this.#blocks.find((each) => mayLack(each) && (absentOf(each) ?? 0) > 0);
    if (block === undefined) return undefined;
    const message = `${absentOf(block)} of ${pageCount(block)} pages are in none of the channels: is a channel of a higher number than ${channels.list.length - 1} missing?`;
    return makeFinding('missing-channels', message, { ...place, block: block.idstr });
  }
}

/** The finding for a main stream without its channels. */
export function channelsNotGiven(place: Place): Finding {
  const message = 'the pages of a multifd migration are in its channels, which were not given';
  return makeFinding('missing-channels', message, place);
}

const onlyMain =
  'no page with data was sent: this is the main stream of a multifd migration, whose pages are in its channels';

function includes(bytes: Uint8Array, wanted: Uint8Array): boolean {
  const [first = 0] = wanted;
  for (let at = bytes.indexOf(first); at !== -1; at = bytes.indexOf(first, at + 1)) {
    if (wanted.every((byte, i) => bytes[at + i] === byte)) return true;
  }
  return false;
}
