/**
 * Copies the sections of iterables other than RAM while a stream is decoded that cannot be read again. Their bodies are
 * not in any item of the Flow.
 */
import type { Section } from '../vm/flow.ts';
import { MigrationError } from '../vm/migration-error.ts';
import type { RawSection } from '../vm/saved-vm.ts';
import { type ByteWindow, concat } from '../wire/byte-window.ts';
import { ByteWriter } from '../wire/byte-writer.ts';
import { encodeSectionHead } from '../wire/section.ts';

/** The most bytes of these sections that are kept in all. */
const maxKeptBytes = 128 << 20;

export class KeptSections {
  readonly list: RawSection[] = [];
  #kind: RawSection['kind'] | undefined;
  #parts: Uint8Array[] = [];
  #bytes = 0;
  /** Offset in the stream of the first byte of the section that was not copied yet. */
  #from = 0;

  /** Begins a section whose head was decoded. RAM and devices are not kept. */
  begin(section: Omit<Section, 'length'>, { offset }: ByteWindow): void {
    this.#kind = undefined;
    if (section.name === 'ram' || section.kind === 'full') return;
    const head = new ByteWriter();
    encodeSectionHead(head, section);
    this.#kind = section.kind;
    this.#parts = [head.bytes()];
    this.#from = offset;
  }

  /** Forgets a section whose stream broke off. */
  drop(): void {
    this.#kind = undefined;
  }

  /** Copies what was decoded since the last call. Call it before the window moves on. @throws MigrationError for too much */
  keep(window: ByteWindow): void {
    if (this.#kind === undefined) return;
    const from = this.#from - window.base;
    this.#parts.push(window.bytes.slice(from, window.position));
    this.#bytes += window.position - from;
    this.#from = window.offset;
    if (this.#bytes <= maxKeptBytes) return;
    const message = `expected at most ${maxKeptBytes} bytes of iterables other than RAM, got ${this.#bytes}`;
    throw new MigrationError('limit-exceeded', message, window.place());
  }

  /** Ends the section, at its last byte. */
  end(window: ByteWindow): void {
    if (this.#kind === undefined) return;
    this.keep(window);
    this.list.push({ kind: this.#kind, bytes: concat(this.#parts) });
    this.#kind = undefined;
    this.#parts = [];
  }
}
