/** The Bytes panel: bytes of a RAM block of either file, or of the file itself, and the search in RAM. */
import { useEffect, useMemo, useState } from 'preact/hooks';
import { formatHex, plural, printable } from '../../../words/format.ts';
import type { OpenedFile } from '../../protocol.ts';
import { ByteCache } from '../byte-cache.ts';
import type { BytesPlace } from '../bytes-place.ts';
import type { Machine } from '../machine.ts';
import type { BytesMode } from './byte-line.tsx';
import { BytesView } from './bytes-view.tsx';
import { useMachine } from './machine-context.ts';
import { OffsetForm } from './offset-form.tsx';
import { SearchPanel } from './search-panel.tsx';
import { TaskLine } from './task-line.tsx';

export function BytesPanel() {
  const machine = useMachine();
  const [mode, setMode] = useState<BytesMode>('hex');
  const place = machine.place.value;
  const { cache, other } = useCaches(machine, place);
  const goTo = useMemo(() => ({ offset: offsetOf(place), length: place.length }), [place]);
  const label = describeSource(machine, place);
  return (
    <section class="panel bytes-panel" id="bytes" aria-labelledby="bytes-title">
      <div class="panel-head">
        <h3 id="bytes-title">Bytes</h3>
        <div class="row">
          <SourceChoice />
          <GoTo />
          <label>
            <span>Show as</span>
            <select value={mode} onChange={({ currentTarget }) => setMode(currentTarget.value as BytesMode)}>
              <option value="hex">hex</option>
              <option value="text">text</option>
            </select>
          </label>
        </div>
      </div>
      <TaskLine
        task={cache.reading}
        what="reading"
        onCancel={() => {
          cache.stop();
          other?.stop();
        }}
        retry={() => cache.resume()}
      />
      {cache.isStopped.value ? <Stopped caches={[cache, other]} /> : null}
      <BytesView {...{ cache, other, label, mode, goTo }} />
      <p class="note" data-test="bytes-where">
        {label}
        {place.length > 0 ? `. Marked: ${plural(place.length, 'byte')} at ${formatHex(offsetOf(place))}` : ''}
        {other === undefined ? '' : '. Marked: differences from the other file'}
      </p>
      <SearchPanel />
    </section>
  );
}

/** After the user cancelled the reading. */
function Stopped({ caches }: { caches: readonly (ByteCache | undefined)[] }) {
  return (
    <p class="note" data-test="bytes-stopped">
      You cancelled the reading.{' '}
      <button type="button" onClick={() => caches.map((each) => each?.resume())}>
        Read the bytes
      </button>
    </p>
  );
}

const offsetOf = (place: BytesPlace) => (place.kind === 'ram' ? place.offset : place.at.offset);

function describeSource({ file, map }: Machine, place: BytesPlace): string {
  if (place.kind === 'file') return `File ${printable(place.at.source ?? file.name)}`;
  const block = printable(blocksOf(place, file, map.base.value)[place.block]?.idstr ?? '');
  return `Final content of ${block}${place.of === 'base' ? ` in ${printable(map.base.value?.name ?? '')}` : ''}`;
}

function blocksOf(place: BytesPlace, file: OpenedFile, base: OpenedFile | undefined): OpenedFile['blocks'] {
  return (place.kind === 'ram' && place.of === 'base' ? base?.blocks : file.blocks) ?? [];
}

/** Caches for the bytes of the view and for the bytes that they are compared with. */
function useCaches(machine: Machine, place: BytesPlace): { cache: ByteCache; other: ByteCache | undefined } {
  const base = machine.map.base.value;
  const isBase = place.kind === 'ram' && place.of === 'base';
  const isRam = place.kind === 'ram';
  const block = isRam ? place.block : -1;
  const source = place.kind === 'file' ? place.at.source : undefined;
  // A new offset in the same source keeps the caches.
  const caches = useMemo(() => {
    if (place.kind === 'file') return { cache: fileCache(machine, place), other: undefined };
    const [own, others] = isBase && base !== undefined ? [base, machine.file] : [machine.file, base];
    const idstr = own.blocks[block]?.idstr;
    const twin = others?.blocks.find((each) => each.idstr === idstr);
    return {
      cache: ramCache(machine, own, block),
      other: others === undefined || twin === undefined ? undefined : ramCache(machine, others, twin.index),
    };
  }, [machine, base, isBase, isRam, block, source]);
  useEffect(() => {
    return () => {
      caches.cache.end();
      caches.other?.end();
    };
  }, [caches]);
  return caches;
}

function ramCache({ viewer }: Machine, file: OpenedFile, block: number): ByteCache {
  return new ByteCache({
    size: file.blocks[block]?.usedLength ?? 0,
    read: async (offset, length, options) => {
      const { bytes } = await viewer.read({ file: file.id, block, offset, length }, options);
      return bytes;
    },
  });
}

function fileCache({ viewer, file }: Machine, { at }: Extract<BytesPlace, { kind: 'file' }>): ByteCache {
  const reader = {
    size: at.source === undefined || at.source === file.name ? file.size : undefined,
    read: async (offset: number, length: number, options: Parameters<typeof viewer.bytes>[1]) => {
      const found = await viewer.bytes({ file: file.id, place: { ...at, offset }, length }, options);
      reader.size = found.size ?? reader.size;
      return found.bytes;
    },
  };
  return new ByteCache(reader);
}

function SourceChoice() {
  const machine = useMachine();
  const { file, map } = machine;
  const place = machine.place.value;
  const base = map.base.value;
  const value = place.kind === 'file' ? 'file' : `${place.of} ${place.block}`;
  const choose = (choice: string) => {
    const [of, block] = choice.split(' ');
    if (of === 'file' && block === undefined) machine.showFile({ offset: 0 });
    else if (of === 'base') machine.place.value = { kind: 'ram', of, block: Number(block), offset: 0, length: 0 };
    else machine.showRam(Number(block), 0);
  };
  return (
    <label>
      <span>Source</span>
      <select value={value} data-test="bytes-of" onChange={({ currentTarget }) => choose(currentTarget.value)}>
        {file.blocks.map(({ index, idstr }) => (
          <option key={index} value={`file ${index}`}>
            {printable(idstr)}
          </option>
        ))}
        {base?.blocks.map(({ index, idstr }) => (
          <option key={`base ${index}`} value={`base ${index}`}>
            {printable(idstr)} in {printable(base.name)}
          </option>
        ))}
        <option value="file">the file itself</option>
      </select>
    </label>
  );
}

function GoTo() {
  const machine = useMachine();
  const go = (offset: number) => {
    const place = machine.place.value;
    if (place.kind === 'file') machine.showFile({ ...place.at, offset });
    else if (place.of === 'base') machine.place.value = { ...place, offset, length: 0 };
    else machine.showRam(place.block, Math.min(offset, (machine.file.blocks[place.block]?.usedLength ?? 1) - 1));
  };
  return <OffsetForm placeholder="0x7c00" button="Go" onOffset={go} />;
}
