/** Libvirt save images as outputs of `vmferry convert`: the XML and cookie, then the stream in any of libvirt's formats. */
import { readFileSync, statSync } from 'node:fs';
import { appendTo, type ByteSink, type ByteStore } from '../../io/byte-source.ts';
import { type CompressingSink, compressTo } from '../../io/node/compress.ts';
import { accessing } from '../../io/node/file-error.ts';
import { readDomain } from '../../read/container/domain-xml.ts';
import { encodeLibvirtHead, findDomain, type LibvirtFormat } from '../../read/container/libvirt-header.ts';
import type { MigrationFile } from '../../read/open.ts';
import type { Settled } from '../../store/settle.ts';
import {
  type Conversion,
  type ConvertToStreamOptions,
  convertToMappedRam,
  convertToStream,
} from '../../tasks/convert/convert.ts';
import { requireDomain } from '../../tasks/convert/domain-agreement.ts';
import type { SavedVm } from '../../vm/saved-vm.ts';
import { UsageError } from '../exit-codes.ts';
import { libvirtText } from '../print/containers.ts';

/** What the header of the image contains. */
export interface LibvirtTexts {
  xml: string;
  cookie: string | undefined;
  /** Whether the guest ran, if the input is an image. */
  wasRunning: boolean | undefined;
  format: LibvirtFormat;
  /** @throws UsageError if the XML from a file describes another VM */
  requireFit(vm: Pick<Settled, 'configuration' | 'blocks'>): void;
}

/** The texts of the image: those of the input, or the XML from a file. */
export function findTexts(file: MigrationFile, path: string | undefined, format: LibvirtFormat): LibvirtTexts {
  const image = file.containers.find((container) => container.kind === 'libvirt');
  if (image === undefined && path === undefined) {
    throw new UsageError(
      `expected --xml FILE with the domain's XML, since ${file.source.name} is not a libvirt save image`,
    );
  }
  const xml = path === undefined ? libvirtText(file, 'xml') : readXml(path);
  const texts = { xml, cookie: image?.data.cookie, wasRunning: image?.header.wasRunning, format };
  if (path === undefined) return { ...texts, requireFit() {} };
  const domain = inFile(path, () => readDomain(xml));
  const of = image === undefined ? {} : { domain: findDomain(image.data.xml) };
  return {
    ...texts,
    requireFit({ configuration, blocks }) {
      const uuid = configuration?.uuid ?? file.channels.uuid;
      inFile(path, () => requireDomain(domain, { machine: configuration?.machine, uuid, blocks, ...of }));
    },
  };
}

function readXml(path: string): string {
  return accessing({ verb: 'read', path }, () => readFileSync(path, 'utf8'));
}

/** Adds the file's name to the errors about its XML. */
function inFile<Result>(path: string, work: () => Result): Result {
  try {
    return work();
  } catch (error) {
    throw error instanceof RangeError ? new UsageError(`${path}: ${error.message}`) : error;
  }
}

/** @throws UsageError if the image would replace the file of the XML */
export function refuseXml(path: string | undefined, output: string): void {
  if (path === undefined) return;
  const [xml, target] = [path, output].map((each) => statSync(each, { throwIfNoEntry: false }));
  if (xml === undefined || xml.dev !== target?.dev || xml.ino !== target.ino) return;
  throw new UsageError(`expected an output other than the XML file, got ${output}`);
}

/** Writes an image in order. */
export async function convertToLibvirt(
  file: MigrationFile,
  output: ByteSink,
  texts: LibvirtTexts,
  options: Omit<ConvertToStreamOptions, 'begin'>,
): Promise<Conversion> {
  const writeHead = (vm: SavedVm) => {
    texts.requireFit(blocksOf(vm));
    return output.write(encodeHead(texts, vm));
  };
  const { format } = texts;
  if (format === 'raw') return convertToStream(file, output, { ...options, begin: writeHead });
  if (format === 'sparse') throw new RangeError('expected a format that is written in order, got sparse');
  // Starts after the head: some programs write before they get any input.
  let sink: CompressingSink | undefined;
  const begin = async (vm: SavedVm) => {
    await writeHead(vm);
    sink = compressTo(format, output);
  };
  try {
    const conversion = await convertToStream(file, { write: (bytes) => sink?.write(bytes) }, { ...options, begin });
    await sink?.end();
    return conversion;
  } catch (error) {
    sink?.abandon();
    throw error;
  }
}

/** Writes an image to a file with random access. The format sparse contains a mapped-ram file. */
export async function convertToLibvirtFile(
  file: MigrationFile,
  output: ByteStore,
  texts: LibvirtTexts,
  options: Omit<ConvertToStreamOptions, 'begin'>,
): Promise<Conversion> {
  if (texts.format !== 'sparse') return convertToLibvirt(file, appendTo(output), texts, options);
  const { description = true } = options;
  const offset = encodeHead(texts, { devices: [] }).length;
  const endBlocks = texts.requireFit;
  const conversion = await convertToMappedRam(file, output, { description, offset, endBlocks });
  // Now the channels of a multifd migration have stated their UUID, too.
  texts.requireFit(blocksOf(conversion.vm));
  await output.write(encodeHead(texts, conversion.vm), 0);
  return conversion;
}

const blocksOf = ({ configuration, ram, ignored }: Pick<SavedVm, 'configuration' | 'ram' | 'ignored'>) => ({
  configuration,
  blocks: [...ram.blocks, ...ignored.filter(({ index }) => ram.blocks.every((block) => block.index !== index))],
});

/** If the input does not state whether the guest ran, the device states do. */
function encodeHead({ wasRunning, requireFit: _, ...texts }: LibvirtTexts, vm: Pick<SavedVm, 'devices'>): Uint8Array {
  return encodeLibvirtHead({ ...texts, wasRunning: wasRunning ?? ranWhenSaved(vm) });
}

/** Reads the section globalstate: be32 length, the runstate's name, NUL. */
function ranWhenSaved({ devices }: Pick<SavedVm, 'devices'>): boolean {
  const state = devices.find(({ name }) => name === 'globalstate')?.data.subarray(4) ?? new Uint8Array();
  return String.fromCharCode(...state.subarray(0, Math.max(0, state.indexOf(0)))) === 'running';
}
