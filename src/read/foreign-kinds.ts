/**
 * Files that people take for a saved VM, by their first bytes: what each is, and what to do with it. The table is in the
 * order in which it is tried. Streams and the containers that vmferry opens never come here.
 */

/** What is known of a file: its first bytes, its name, and its size. */
export interface ForeignHead {
  head: Uint8Array;
  name: string;
  size: number | undefined;
}

type Test = (file: ForeignHead) => boolean;

/** A kind of file. */
export interface ForeignKind {
  /** What it is, with its article. */
  what: string;
  /** What to do with it. */
  todo: string;
  is: Test;
}

/** Bytes at the beginning that show every kind: the volume descriptor of a CD image comes last. */
export const foreignHeadLength = 0x8800;
/** Bytes that are looked at for text, for zeros, and for a stream that begins later. */
const shortHead = 4096;

const bytesOf = (magic: string | readonly number[]) =>
  typeof magic === 'string' ? [...magic].map((character) => character.charCodeAt(0)) : magic;
const matches = (head: Uint8Array, offset: number, magic: readonly number[]) =>
  magic.every((byte, i) => head[offset + i] === byte);
/** The file has these bytes at this offset. */
const at = (offset: number, magic: string | readonly number[]): Test => {
  const bytes = bytesOf(magic);
  return ({ head }) => matches(head, offset, bytes);
};
/** The file begins with one of these. */
const starts = (...magics: (string | readonly number[])[]): Test => {
  const tests = magics.map((magic) => at(0, magic));
  return (file) => tests.some((test) => test(file));
};
const both =
  (...tests: Test[]): Test =>
  (file) =>
    tests.every((test) => test(file));
const either =
  (...tests: Test[]): Test =>
  (file) =>
    tests.some((test) => test(file));
const named =
  (pattern: RegExp): Test =>
  ({ name }) =>
    pattern.test(name);
const u32 = (head: Uint8Array, offset: number, little: boolean) =>
  head.length < offset + 4 ? undefined : new DataView(head.buffer, head.byteOffset).getUint32(offset, little);
const u64 = (head: Uint8Array, offset: number) =>
  head.length < offset + 8 ? undefined : new DataView(head.buffer, head.byteOffset).getBigUint64(offset);

/** The object type of an ELF file: 4 for a core. The byte at 5 says in which order its bytes are. */
const elfType =
  (isCore: boolean): Test =>
  ({ head }) =>
    matches(head, 0, elfMagic) && (head[head[5] === 2 ? 17 : 16] === 4) === isCore;
const elfMagic = [0x7f, 0x45, 0x4c, 0x46];

/** The first text, without white space before it. */
const textOf = ({ head }: ForeignHead) => new TextDecoder('latin1').decode(head.subarray(0, shortHead)).trimStart();
const isText: Test = ({ head }) => {
  const bytes = head.subarray(0, shortHead);
  // A stream that breaks off in its magic is text, too.
  if ([...'QEVM'].every((character, i) => i >= bytes.length || bytes[i] === character.charCodeAt(0))) return false;
  if ([...'LibvirtQemud'].every((character, i) => i >= bytes.length || bytes[i] === character.charCodeAt(0)))
    return false;
  return (
    bytes.length > 0 && bytes.every((byte) => (byte >= 0x20 ? byte !== 0x7f : (byte >= 8 && byte <= 13) || byte === 27))
  );
};
const text = (pattern: RegExp): Test => both(isText, (file) => pattern.test(textOf(file)));
const isZero: Test = ({ head }) => head.length >= 512 && head.subarray(0, shortHead).every((byte) => byte === 0);

/** The real-mode interrupt vectors of a BIOS, with which the memory of a PC begins: segments 0xf000 and 0xc000. */
const hasVectors: Test = ({ head }) => {
  let vectors = 0;
  for (let i = 0; i < 32 && head.length >= 128; i++) {
    const segment = (head[i * 4 + 2] as number) | ((head[i * 4 + 3] as number) << 8);
    if (segment === 0xf000 || segment === 0xc000) vectors++;
  }
  return vectors >= 16;
};

/** The RAM of an Android emulator begins with the offset of the index at its end. */
const isEmulatorRam: Test = ({ head, name, size }) => {
  if (/(^|[/\\])(ram\.bin|ram\.img|textures\.bin)$/.test(name)) return true;
  const index = u64(head, 0);
  if (index === undefined || size === undefined || size < 1 << 20) return false;
  return index >= BigInt(size) / 2n && index < BigInt(size) && Number(index) > size - (64 << 20);
};

/** A stream of zlib: the method, a window of 32 KiB, and a check sum of both bytes. */
const isZlib: Test = ({ head }) =>
  head.length > 2 && head[0] === 0x78 && [0x01, 0x5e, 0x9c, 0xda].includes(head[1] as number);

const decompress = (command: string) => `vmferry does not read this compression; decompress it first: ${command}`;
const decrypt = (command: string) => `decrypt it first: ${command}`;
const noState = 'it has memory but no device state, so no QEMU can resume it';
const noMemory =
  'it has no memory of a VM; name the file that migrate, savevm or virsh save wrote, or a qcow2 image with an internal snapshot';

/** Cores, dumps and raw memory: a guest's memory without its devices. */
const memoryKinds: readonly ForeignKind[] = [
  {
    what: 'an ELF core file, as dump-guest-memory and virsh dump write it',
    todo: `${noState}; open it with gdb, crash or drgn`,
    is: elfType(true),
  },
  {
    what: 'a kdump-compressed dump',
    todo: `${noState}; open it with crash or drgn`,
    is: starts('KDUMP   ', 'DISKDUMP'),
  },
  {
    what: 'a flattened kdump-compressed dump, as dump-guest-memory writes it',
    todo: `${noState}; rearrange it with "makedumpfile -R OUT < FILE", and open that with crash`,
    is: starts('makedumpfile\0'),
  },
  { what: 'a LiME memory dump', todo: `${noState}; open it with Volatility`, is: starts('EMiL', 'AVML', 'LVMA') },
  {
    what: 'a Windows crash dump',
    todo: `${noState}; open it with WinDbg or Volatility`,
    is: starts('PAGEDU64', 'PAGEDUMP', 'MDMP'),
  },
  {
    what: 'a Windows hibernation file',
    todo: `${noState}; open it with Volatility`,
    is: starts('hibr', 'HIBR', 'wake', 'WAKE', 'RSTR'),
  },
  { what: 'a forensic image (EnCase)', todo: `${noState}; read it with libewf`, is: starts('EVF\x09', 'EVF2') },
];

/** States of other hypervisors, and other files of QEMU. */
const stateKinds: readonly ForeignKind[] = [
  {
    what: 'a Proxmox backup (VMA)',
    todo: 'take it apart with "vma extract FILE DIRECTORY"; if the VM was running, its state is DIRECTORY/vmstate.bin',
    is: starts('VMA\0'),
  },
  {
    what: "a stream of QEMU's CPR channel (cpr-transfer, cpr-exec)",
    todo: 'it has file descriptors and no memory; the state is in the main stream, which begins with "QEVM"',
    is: starts('QCPR'),
  },
  {
    what: 'a saved Xen domain',
    todo: 'restore it with "xl restore FILE"; it is not a stream of QEMU, although the state of a device model may be inside',
    is: starts(
      'Xen saved domain',
      'LinuxGuestRecord',
      'XenSaved',
      'LibxlFmt',
      'DeviceModelRecord',
      'QemuDeviceModelRecord',
    ),
  },
  {
    what: 'a Xen migration stream (libxc)',
    todo: 'restore it with "xl restore"; it is not a stream of QEMU',
    is: either(starts([...Array(8).fill(0xff), 0x58, 0x45, 0x4e, 0x46], 'XENF'), starts([...Array(8).fill(0xff)])),
  },
  {
    what: 'the state of a VMware VM (.vmss, .vmsn)',
    todo: 'it is of another hypervisor: open it with Volatility or vmss2core, together with its .vmem file',
    is: starts([0xd0, 0xbe, 0xd2, 0xbe], [0xd1, 0xba, 0xd1, 0xba], [0xd2, 0xbe, 0xd2, 0xbe], [0xd3, 0xbe, 0xd3, 0xbe]),
  },
  {
    what: 'the memory of a VMware VM (.vmem)',
    todo: `${noState}; open it with Volatility, together with its .vmss or .vmsn file`,
    is: named(/\.vmem$/i),
  },
  {
    what: 'the saved state of a VirtualBox VM (.sav)',
    todo: 'it is of another hypervisor: resume it there, or write its memory with "VBoxManage debugvm NAME dumpvmcore"',
    is: starts('\x7fVirtualBox SavedState'),
  },
  {
    what: 'the saved state of a Hyper-V VM (.vmrs, .vmcx)',
    todo: 'it is of another hypervisor: resume it there, or read its memory with vm2dmp or Volatility',
    is: either(starts([0x14, 0x20, 0x28, 0x01]), named(/\.(vmrs|vmcx|vsv)$/i)),
  },
  {
    what: 'a snapshot of Firecracker',
    todo: 'it is of another hypervisor: restore it there; the memory is in another file',
    is: ({ head }) => u32(head, 4, true) === 0x07101984,
  },
  {
    what: 'an image of CRIU',
    todo: 'it is a checkpoint of processes: restore it with "criu restore"',
    is: starts([0x19, 0x43, 0x56, 0x54], [0x40, 0x59, 0x10, 0x55]),
  },
];

/** Disks, archives, programs and the like: files without the memory of a VM. */
const otherKinds: readonly ForeignKind[] = [
  { what: 'a program or a library (ELF)', todo: noMemory, is: elfType(false) },
  {
    what: 'a tar archive',
    todo: 'take the stream out first: tar -xf FILE',
    is: at(257, 'ustar'),
  },
  {
    what: 'a cpio archive',
    todo: 'take the stream out first: cpio -id < FILE',
    is: starts('070701', '070702', '070707'),
  },
  { what: 'an ar archive or a Debian package', todo: noMemory, is: starts('!<arch>\n') },
  { what: 'an RPM package', todo: noMemory, is: starts([0xed, 0xab, 0xee, 0xdb]) },
  { what: 'a cabinet archive', todo: 'take the stream out first: cabextract FILE', is: starts('MSCF') },
  { what: 'a RAR archive', todo: decompress('unrar p -inul FILE > STREAM'), is: starts('Rar!\x1a\x07') },
  {
    what: 'a 7z archive',
    todo: decompress('7z x -so FILE > STREAM'),
    is: starts([0x37, 0x7a, 0xbc, 0xaf, 0x27, 0x1c]),
  },
  { what: 'data compressed by lrzip', todo: decompress('lrzip -d FILE'), is: starts('LRZI') },
  { what: 'data compressed by rzip', todo: decompress('rzip -d FILE'), is: starts('RZIP') },
  { what: 'data compressed by lzip', todo: decompress('lzip -dc FILE > STREAM'), is: starts('LZIP') },
  { what: 'data compressed by bzip3', todo: decompress('bzip3 -dc FILE > STREAM'), is: starts('BZ3v1') },
  { what: 'data compressed by zpaq', todo: decompress('zpaq x FILE'), is: starts('7kSt', 'zPQ') },
  { what: 'data compressed by lzfse', todo: decompress('lzfse -decode -i FILE -o STREAM'), is: starts('bvx') },
  {
    what: 'data compressed by lizard or lz5',
    todo: decompress('lizard -dc FILE > STREAM'),
    is: starts([5, 0x22, 0x4d, 0x18], [6, 0x22, 0x4d, 0x18]),
  },
  {
    what: 'data compressed by lz4',
    todo: decompress('lz4 -dc FILE > STREAM'),
    is: starts([4, 0x22, 0x4d, 0x18], [2, 0x21, 0x4c, 0x18]),
  },
  {
    what: 'data compressed by lzma (.lzma)',
    todo: decompress('lzma -dc FILE > STREAM'),
    is: ({ head }) => matches(head, 0, [0x5d, 0, 0]) && head[12] !== undefined && (head[12] === 0 || head[12] === 0xff),
  },
  {
    what: 'data compressed by compress or pack',
    todo: decompress('gzip -dc FILE > STREAM'),
    is: starts([0x1f, 0x9d], [0x1f, 0x1e], [0x1f, 0xa0]),
  },
  {
    what: 'framed Snappy data',
    todo: decompress('snzip -dc FILE > STREAM'),
    is: either(
      starts([0xff, 6, 0, 0, 0x73, 0x4e, 0x61, 0x50, 0x70, 0x59]),
      starts('SNAPPY\0', [0x82, 0x53, 0x4e, 0x41, 0x50, 0x50, 0x59]),
    ),
  },
  { what: 'zlib data without a container', todo: decompress('zlib-flate -uncompress < FILE > STREAM'), is: isZlib },
  { what: 'data compressed by brotli', todo: decompress('brotli -dc FILE > STREAM'), is: named(/\.br$/i) },
  {
    what: 'data encrypted by age',
    todo: decrypt('age -d FILE > STREAM'),
    is: starts('age-encryption.org/', '-----BEGIN AGE'),
  },
  {
    what: 'data encrypted by OpenPGP',
    todo: decrypt('gpg -d FILE > STREAM'),
    is: either(
      starts('-----BEGIN PGP'),
      both(named(/\.(gpg|pgp)$/i), ({ head }) => ((head[0] ?? 0) & 0x80) !== 0),
    ),
  },
  {
    what: 'data encrypted by openssl',
    todo: decrypt('openssl enc -d -CIPHER -in FILE -out STREAM'),
    is: starts('Salted__'),
  },
  {
    what: 'an encrypted disk (LUKS)',
    todo: decrypt('cryptsetup open FILE NAME, or qemu-img convert'),
    is: starts([0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe]),
  },
  {
    what: 'a disk image of VMware (VMDK)',
    todo: noMemory,
    is: starts('KDMV', 'COWD', '# Disk DescriptorFile'),
  },
  { what: 'a disk image of VirtualBox (VDI)', todo: noMemory, is: at(64, [0x7f, 0x10, 0xda, 0xbe]) },
  { what: 'a disk image of Hyper-V (VHD, VHDX)', todo: noMemory, is: starts('conectix', 'vhdxfile') },
  { what: 'a disk image of Parallels', todo: noMemory, is: starts('WithoutFreeSpace', 'WithouFreSpacExt') },
  { what: 'a disk image of QEMU (QED)', todo: noMemory, is: starts('QED\0') },
  { what: 'a CD image (ISO 9660)', todo: noMemory, is: at(0x8001, 'CD001') },
  { what: 'a disk with a GPT', todo: noMemory, is: either(at(512, 'EFI PART'), at(4096, 'EFI PART')) },
  { what: 'a raw disk or a boot sector', todo: noMemory, is: at(510, [0x55, 0xaa]) },
  {
    what: 'a raw disk or a file system',
    todo: noMemory,
    is: either(
      starts('XFSB', 'hsqs'),
      at(512, 'LABELONE'),
      at(3, 'NTFS    '),
      at(4086, 'SWAPSPACE2'),
      at(4086, 'SWAP-SPACE'),
      both(at(1080, [0x53, 0xef]), isExt),
    ),
  },
  { what: 'a program (Windows, DOS)', todo: noMemory, is: both(starts('MZ'), ({ head }) => head.length >= 64) },
  {
    what: 'a program (Mach-O or Java)',
    todo: noMemory,
    is: starts([0xcf, 0xfa, 0xed, 0xfe], [0xce, 0xfa, 0xed, 0xfe], [0xca, 0xfe, 0xba, 0xbe]),
  },
  {
    what: 'a picture',
    todo: noMemory,
    is: starts('\x89PNG', [0xff, 0xd8, 0xff], 'GIF8', /* screendump */ 'P6\n', 'P6 '),
  },
  { what: 'a PDF document', todo: noMemory, is: starts('%PDF-') },
  { what: 'an SQLite database', todo: noMemory, is: starts('SQLite format 3\0') },
  { what: 'a script', todo: noMemory, is: text(/^#!/) },
  {
    what: 'the XML of a libvirt domain',
    todo: 'it describes the VM and has no memory; name the file that virsh save wrote',
    is: text(/^(<\?xml[^>]*>\s*)?(<!--[\s\S]*?-->\s*)*<(domain|domstatus|domainsnapshot|qemusaveimage)\b/),
  },
  { what: 'XML', todo: noMemory, is: text(/^<(\?xml|[a-zA-Z!])/) },
  {
    what: 'the output of -dump-vmstate',
    todo: 'it says what a QEMU can load and has no memory; use it to check a saved file against it',
    is: text(/^\{\s*"vmschkmachine"|^\{[\s\S]*"minimum_version_id"/),
  },
  { what: 'JSON', todo: noMemory, is: text(/^(\{\s*["}]|\[\s*["{[\d\]])/) },
  { what: 'text', todo: noMemory, is: isText },
];

/** An ext file system has a magic of two bytes only: the first kilobyte is empty or a boot sector. */
function isExt({ head }: ForeignHead): boolean {
  const state = (u32(head, 1080, true) ?? 0) >>> 16;
  return state <= 7;
}

/** What no magic shows, but the content does. */
const lastKinds: readonly ForeignKind[] = [
  {
    what: 'the RAM of an Android emulator (ram.bin)',
    todo: 'the emulator keeps RAM in this format of its own and the devices in a snapshot of its qcow2 images; load it with the emulator',
    is: isEmulatorRam,
  },
  {
    what: 'raw memory of a PC, as pmemsave writes it and .vmem files have it',
    todo: `${noState}; search it as it is, or open it with Volatility`,
    is: hasVectors,
  },
  {
    what: 'a file that begins with zeros',
    todo: 'nothing was saved into it, or it is a raw disk or raw memory; if a stream begins later, say at which offset',
    is: isZero,
  },
];

const kinds: readonly ForeignKind[] = [...memoryKinds, ...stateKinds, ...otherKinds, ...lastKinds];

/** Finds what a file is that does not begin as a stream. */
export function findForeignKind(file: ForeignHead): Pick<ForeignKind, 'what' | 'todo'> | undefined {
  const inside = findStream(file.head);
  const kind = kinds.find(({ is }) => is(file));
  if (inside === undefined) return kind;
  const where = `a stream begins at offset ${inside}`;
  if (kind === undefined) return { what: 'something else', todo: `${where}: open the file there` };
  return { what: kind.what, todo: `${kind.todo}; ${where} of it` };
}

/** The offset of the first stream of version 3 behind something else. */
function findStream(head: Uint8Array): number | undefined {
  const magic = [0x51, 0x45, 0x56, 0x4d, 0, 0, 0, 3];
  for (let offset = head.indexOf(0x51); offset !== -1; offset = head.indexOf(0x51, offset + 1)) {
    if (matches(head, offset, magic)) return offset;
  }
  return undefined;
}
