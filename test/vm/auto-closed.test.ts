/** `await using` closes everything that a caller opens and owns. */
import { once } from 'node:events';
import { createReadStream, existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ReadGuard } from '../../src/io/abort.ts';
import { OutputSet } from '../../src/io/node/output-set.ts';
import {
  type AutoClosed,
  asyncDispose,
  BlobSource,
  compressTo,
  convertToChanges,
  convertToMappedRam,
  convertToStream,
  loadKernel,
  MappedRamReader,
  MappedRamStore,
  MemoryFile,
  MemoryScratch,
  MultifdWriter,
  multifdArenaBytes,
  OutputFile,
  OverlayRam,
  open,
  openHttp,
  openRamContent,
  openRange,
  openScratch,
  openSource,
  openZipMember,
  PortableCodecs,
  RawRam,
  readZip,
  StreamSource,
  StreamWriter,
  watchSource,
  writerArenaBytes,
  ZipWriter,
} from '../../src/node.ts';
import { releaseRulesOf } from '../../src/schema/release-rules.ts';
import { ResizedRam } from '../../src/store/resized-ram.ts';
import { openPhysical } from '../../src/tasks/extract/physical.ts';
import { RecordingFile } from '../support/recording-file.ts';

const sample = 'samples/guest.migration';
const bytes = Uint8Array.from({ length: 8192 }, (_, i) => (i * 31) & 0xff);
let folder: string;
let server: Server;
let url: string;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'vmferry-test-'));
  server = createServer((_, response) => response.end(bytes)).listen(0, '127.0.0.1');
  await once(server, 'listening');
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
});
afterAll(() => {
  server.close();
  rmSync(folder, { recursive: true });
});

/** An object, and whether it was closed. Not given for objects without resources. */
interface Closing {
  thing: AutoClosed;
  isClosed?: () => boolean | Promise<boolean>;
}

const recorded = async (make: (file: RecordingFile) => AutoClosed | Promise<AutoClosed>): Promise<Closing> => {
  const file = new RecordingFile('recorded', bytes);
  return { thing: await make(file), isClosed: () => file.closed > 0 };
};

/** Something that keeps its content in a scratch file. */
const scratched = async (make: (makeScratch: () => RecordingFile) => Promise<AutoClosed>): Promise<Closing> => {
  const scratches: RecordingFile[] = [];
  const thing = await make(() => {
    scratches.push(new RecordingFile());
    return scratches.at(-1) as RecordingFile;
  });
  return { thing, isClosed: () => scratches.every(({ closed }) => closed > 0) };
};

const throwsOnRead = async (read: () => unknown) => {
  try {
    await read();
    return false;
  } catch {
    return true;
  }
};

const noLeftovers = () => readdirSync(folder).every((name) => !name.startsWith('.vmferry-'));
const rawRam = (file: RecordingFile) => new RawRam([{ idstr: 'pc.ram', source: file }]);

const things: Record<string, () => Promise<Closing>> = {
  'a MigrationFile': () => recorded((file) => open(file)),
  'a NodeFile': async () => {
    const source = await openSource(sample);
    return { thing: source, isClosed: () => throwsOnRead(() => source.read(new Uint8Array(8), 0)) };
  },
  'a scratch file': async () => {
    const file = openScratch(folder);
    return { thing: file, isClosed: () => throwsOnRead(() => file.read(new Uint8Array(8), 0)) };
  },
  'a source whose reads can be aborted': async () => {
    const source = new ReadGuard().wrap(openScratch(folder));
    return { thing: source, isClosed: () => throwsOnRead(() => source.read(new Uint8Array(8), 0)) };
  },
  'a source over HTTP': async () => {
    const source = await openHttp(url);
    return { thing: source, isClosed: () => throwsOnRead(() => source.read(new Uint8Array(8), 0)) };
  },
  'a StreamSource': async () => {
    let isCancelled = false;
    const cancel = () => {
      isCancelled = true;
    };
    const chunks = (async function* () {
      yield bytes;
    })();
    return { thing: new StreamSource(chunks, 'pipe', cancel), isClosed: () => isCancelled };
  },
  'a BlobSource': async () => ({ thing: new BlobSource(new Blob([bytes])) }),
  'a MemoryFile': async () => ({ thing: new MemoryFile('memory', bytes) }),
  'a watched source': async () => ({ thing: watchSource(new MemoryFile('memory', bytes), {}) }),
  'a member of an archive': async () => {
    const archive = new MemoryFile();
    const zip = new ZipWriter({ write: (piece) => archive.write(piece, archive.size) });
    await zip.add('one', new MemoryFile('memory', bytes));
    await zip.end();
    const contents = await readZip(archive);
    return { thing: await openZipMember(contents, contents.members[0] as never) };
  },
  'a ScratchFile in memory': async () => {
    const file = await new MemoryScratch(1 << 20).makeFile();
    await file.write(bytes, 0);
    return { thing: file, isClosed: () => file.size === 0 };
  },
  'a RawRam': () => recorded(rawRam),
  'a ResizedRam': () => recorded((file) => new ResizedRam(rawRam(file), rawRam(file).blocks)),
  'an OverlayRam': () => recorded((file) => new OverlayRam(rawRam(new RecordingFile('base', bytes)), rawRam(file))),
  'a MappedRamStore': () => recorded(async (file) => new MappedRamStore(file, (await open(sample)).pageSlots)),
  'RAM content': () =>
    scratched(async (makeScratch) =>
      openRamContent(await open('samples/recovered.migration.gz', parts), { makeScratch }),
    ),
  'a RamRange': async () => {
    // A short range is kept in memory, in a file that nobody else sees.
    const { close } = MemoryFile.prototype;
    let closed = false;
    MemoryFile.prototype.close = function () {
      closed = true;
      MemoryFile.prototype.close = close;
      return close.call(this);
    };
    return {
      thing: await openRange(await open(sample), { block: 'pc.ram', makeScratch: () => new MemoryFile() }),
      isClosed: () => closed,
    };
  },
  'a PhysicalMemory': () =>
    scratched(async (makeScratch) => openPhysical(await open(createReadStream(sample)), { makeScratch })),
  'a Conversion': () =>
    scratched(async (makeScratch) =>
      convertToStream(await open(createReadStream(sample)), { write() {} }, { makeScratch }),
    ),
  'a Conversion to a mapped-ram file': async () => ({
    thing: await convertToMappedRam(await open(sample), new MemoryFile()),
  }),
  'changes since a base': () =>
    scratched(async (makeScratch) =>
      convertToChanges(
        await open(createReadStream(sample)),
        await open(createReadStream('samples/earlier.migration')),
        new MemoryFile(),
        { makeScratch },
      ),
    ),
  'an OutputFile': async () => ({ thing: new OutputFile(join(folder, 'out')), isClosed: noLeftovers }),
  'an OutputSet': async () => ({
    thing: new OutputSet(join(folder, 'main'), [join(folder, 'other')]),
    isClosed: noLeftovers,
  }),
  'a MappedRamReader': () => recorded((file) => new MappedRamReader(file, rawRam(file).blocks)),
  'a MultifdWriter': async () => {
    let closed = 0;
    class CountingCodecs extends PortableCodecs {
      override async openEncoder(...args: Parameters<PortableCodecs['openEncoder']>) {
        const encoder = await super.openEncoder(...args);
        const { close } = encoder;
        encoder.close = () => {
          closed++;
          close.call(encoder);
        };
        return encoder;
      }
    }
    const kernel = await loadKernel({ arenaBytes: (64 << 10) + writerArenaBytes + multifdArenaBytes });
    const thing = await MultifdWriter.open(new StreamWriter(kernel, { write() {} }), [{ write() {} }, { write() {} }], {
      rules: releaseRulesOf('none', '10.0'),
      pageSize: 4096,
      codecs: new CountingCodecs(),
      compression: 'zstd',
    });
    return { thing, isClosed: () => closed === 2 };
  },
  'a compressing sink': async () => ({ thing: compressTo('gzip', { write() {} }) }),
};
const parts = { resumeOf: 'samples/broken-off.migration' };

describe.each(Object.entries(things))('%s', (_, make) => {
  it('is closed at the end of its scope', async () => {
    const { thing, isClosed } = await make();
    {
      await using used = thing;
      expect(used).toBe(thing);
      if (isClosed !== undefined) expect(await isClosed()).toBe(false);
    }
    if (isClosed !== undefined) expect(await isClosed()).toBe(true);
  });

  it('can be closed twice', async () => {
    const { thing } = await make();
    await thing[asyncDispose]();
    await expect(thing[asyncDispose]()).resolves.toBeUndefined();
  });
});

it('keeps an output that was committed', async () => {
  const path = join(folder, 'committed');
  {
    await using output = new OutputFile(path);
    output.file.write(bytes, 0);
    await output.commit();
  }
  expect(existsSync(path)).toBe(true);
});
