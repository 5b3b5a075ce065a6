/**
 * vmferry: reads, verifies, extracts and converts QEMU migration streams and mapped-ram files.
 *
 * This is the entry point for every platform. `vmferry/node` adds files and pipes.
 */

import type { Abortable } from './io/abort.ts';
import type { ByteSource } from './io/byte-source.ts';
import { type HttpUrl, isHttp, openHttp } from './io/http-source.ts';
import { type ByteInput, toSource } from './io/input.ts';
import type { UrlLike } from './io/platform.ts';
import { openMember } from './read/container/zip-members.ts';
import { requireWhole, splitUrl } from './read/location.ts';
import { type MigrationFile, type OpenOptions, openFile } from './read/open.ts';
import { mapParts } from './read/parts.ts';

/**
 * What {@link open} takes: memory, a Blob or File, a handle of a file, a Response, a stream, an async iterable of bytes, an
 * http(s) URL as a string or an object, or a {@link ByteSource} of your own.
 */
export type Openable = ByteInput | ByteSource | UrlLike | HttpUrl;

/**
 * Opens a migration stream or mapped-ram file, or what contains one: a libvirt save image, a compressed stream, the
 * snapshot of a qcow2 image (`options.snapshot`), a member of a zip archive (`options.member`). A URL may end in `#SNAPSHOT`,
 * `#MEMBER` or `,offset=N`. Takes over what it is given: closing the file closes it, and so does a failure.
 *
 * @example
 * const file = await open(blob);
 * const { inspection } = await inspect(file);
 * console.log(inspection.machine, inspection.ram.blocks.map((block) => block.idstr));
 *
 * @throws TypeError for anything that is not a source of bytes, or can no longer be read; HttpError for an error of a
 *   server; NoRoomError for an input that would have to be copied, and is longer than the limit.
 */
export async function open(input: Openable, options: OpenOptions<Openable> = {}): Promise<MigrationFile> {
  const opened: ByteSource[] = [];
  let given: Parameters<typeof openFile>;
  try {
    const { source, where } = await openInput(input, options);
    opened.push(source);
    const parts = await mapParts(options, async (part) => {
      const { source: whole, where: place } = await openInput(part, options);
      opened.push(whole);
      requireWhole(place);
      return place.inside === undefined ? whole : openMember(whole, place.inside);
    });
    given = [source, { ...where, ...options, ...parts }];
  } catch (error) {
    for (const source of opened) await source.close();
    throw error;
  }
  return openFile(...given);
}

/** Opens an input, and says which part of it was named. */
async function openInput(
  input: Openable,
  { signal }: Abortable,
): Promise<{ source: ByteSource; where: Pick<OpenOptions, 'inside' | 'offset'> }> {
  const location = urlOf(input);
  if (location === undefined) return { source: await toSource(input), where: {} };
  const { url, inside, offset } = splitUrl(location);
  const where = {
    ...(inside === undefined ? {} : { inside }),
    ...(offset === undefined ? {} : { offset }),
  };
  return { source: await openHttp(url, { signal }), where };
}

/** The http(s) URL that an input is; undefined if it is something else. */
function urlOf(input: Openable): string | undefined {
  const { href } = Object(input) as Partial<UrlLike>;
  return [input, href].find((each): each is string => typeof each === 'string' && isHttp(each));
}

export { type DeviceDiff, diffDevice, type FieldChange, type PlainValue } from './devices/device-diff.ts';
export { type DeviceTimer, findTimers, readRunState } from './devices/device-facts.ts';
export { deviceToJson } from './devices/device-json.ts';
export {
  type DeviceState,
  decodeDevice,
  isStruct,
  type StateField,
  type StateStruct,
  type StateValue,
} from './devices/device-state.ts';
export { findValue } from './devices/find-value.ts';
export { readVirtioDevice, type VirtioDevice, type VirtioQueue, virtioStatusNames } from './devices/virtio-device.ts';
export { readX86Registers, type X86Registers, type X86Segment, x86FlagNames } from './devices/x86-registers.ts';
export type { FreezeOptions, FrozenRam } from './guest/frozen-ram.ts';
export type { GuestCheckpoints } from './guest/guest-checkpoints.ts';
export { type GuestBlockSize, GuestRam } from './guest/guest-ram.ts';
export { type ImageBlock, ImageRam } from './guest/image-ram.ts';
export { SyntheticGuest, type SyntheticGuestOptions } from './guest/synthetic-guest.ts';
export { SyntheticRing } from './guest/synthetic-ring.ts';
export type { WorkloadOptions } from './guest/workload.ts';
export type { Abortable } from './io/abort.ts';
export { BlobSource, type BlobSourceOptions } from './io/blob-source.ts';
export { appendTo, type ByteSink, type ByteSource, type ByteStore, type OpenedSource } from './io/byte-source.ts';
export {
  type Compression,
  type Decompress,
  MissingDecompressorError,
  portableDecompress,
} from './io/compression.ts';
export { HttpError, type HttpFile, type HttpOptions, type HttpUrl, openHttp } from './io/http-source.ts';
export type { ByteChunks, ByteInput } from './io/input.ts';
export { MemoryFile } from './io/memory-file.ts';
export { type OpfsScratch, openOpfsScratch } from './io/opfs-scratch.ts';
export {
  CodecError,
  levelsOf,
  type PageCodecs,
  type PageDecoder,
  type PageEncoder,
  type PageFormat,
  type StreamFormat,
} from './io/page-codec.ts';
export type * from './io/platform.ts';
export { PortableCodecs } from './io/portable-codecs.ts';
export { MemoryScratch, NoRoomError, type ScratchFile, type ScratchPlace } from './io/scratch.ts';
export type { SpoolOptions } from './io/spool.ts';
export { type NodeWritable, pipeTo } from './io/stream-sink.ts';
export { StreamSource } from './io/stream-source.ts';
export { type Watch, watchSource } from './io/watched-source.ts';
export {
  type MemberOptions,
  openZipMember,
  readZip,
  type ZipArchive,
  type ZipMember,
} from './io/zip.ts';
export { requireZippable, type ZipMemberOptions, ZipWriter } from './io/zip-writer.ts';
export * from './kernel/index.ts';
export { PageSlots, pageSlotsArenaBytes } from './kernel/page-slots.ts';
export type { ChannelReport } from './read/channels.ts';
export type { Container, ContainerOptions } from './read/container/container.ts';
export { type DomainFacts, type DomainMemoryDevice, readDomain } from './read/container/domain-xml.ts';
export type { LibvirtData, LibvirtFormat, LibvirtHeader, LibvirtImageHead } from './read/container/libvirt-header.ts';
export { type Domain, encodeLibvirtHead, findDomain } from './read/container/libvirt-header.ts';
export type { Qcow2Header, Qcow2Snapshot } from './read/container/qcow2-header.ts';
export { type Qcow2Image, SnapshotError } from './read/container/qcow2-snapshots.ts';
export { MemberError } from './read/container/zip-members.ts';
export type { FileFormat } from './read/file-format.ts';
export { type CountedFinding, FindingLog } from './read/finding-log.ts';
export { type FlowChannels, type FlowOptions, MigrationFile, type OpenOptions } from './read/open.ts';
export type { PartLists, Parts } from './read/parts.ts';
export type { ThrottleParameters } from './schema/precopy-rules.ts';
export { type ReleaseName, type ReleaseRules, releaseNames, releaseRulesOf } from './schema/release-rules.ts';
export { type ContentPlan, type PlanOptions, planContent } from './store/content-plan.ts';
export { decodeDevices, type ReadDevices, readDevices } from './store/devices.ts';
export { type FlowSink, onlyPages, refusing } from './store/flow-sink.ts';
export { MappedRamPages, type WrittenPages } from './store/mapped-ram-pages.ts';
export { type MappedRamGaps, MappedRamReader } from './store/mapped-ram-reader.ts';
export {
  type FinishOptions,
  type MappedRamOptions,
  MappedRamStore,
} from './store/mapped-ram-store.ts';
export { type MissingPages, MissingRam } from './store/missing-ram.ts';
export { OverlayRam } from './store/overlay-ram.ts';
export type { PageBits } from './store/page-bits.ts';
export {
  type BlockPair,
  type MatchedBlocks,
  matchBlocks,
  PagePairs,
  type PairGap,
  type PairSpan,
  type PairWindow,
  pagePairsArenaBytes,
} from './store/page-pairs.ts';
export {
  type ContentPiece,
  type Digest,
  digestContent,
  type OpenedVm,
  openRamContent,
  openSavedVm,
  type RamContentOptions,
  readBytes,
  readContent,
  type SavedVmOptions,
} from './store/ram-content.ts';
export { type RawBlock, RawRam } from './store/raw-ram.ts';
export { type Settled, type SettleOptions, settle } from './store/settle.ts';
export { type AddressSpace, type AddressSpaceOptions, openAddressSpace } from './tasks/addresses/address-space.ts';
export { type AddressMatch, searchSpace } from './tasks/addresses/search-space.ts';
export { openSpaceRange, type SpaceRange } from './tasks/addresses/space-range.ts';
export type { BlockPlace, BlockRange, Part, SpaceRun } from './tasks/addresses/space-reader.ts';
export type { VirtualSegment } from './tasks/addresses/virtual-segments.ts';
export { type Check, type CheckTarget, type CheckVerdict, check, judge, readTarget } from './tasks/check/check.ts';
export {
  type BlockFacts,
  type CommandFacts,
  type FileFacts,
  readFacts,
  type SectionFacts,
} from './tasks/check/check-facts.ts';
export type { CheckEffect, CheckReason, CheckRule } from './tasks/check/check-reason.ts';
export {
  canBeDump,
  type DumpedField,
  type DumpedState,
  type DumpedType,
  parseVmstateDump,
  type VmstateDump,
} from './tasks/check/vmstate-dump.ts';
export { type ChangedBlock, convertToChanges, SavedChanges } from './tasks/convert/changes.ts';
export { CopyError } from './tasks/convert/check-copy.ts';
export {
  Conversion,
  type ConvertedBlock,
  type ConvertFromVmOptions,
  type ConvertOptions,
  type ConvertToMappedRamOptions,
  type ConvertToMultifdOptions,
  type ConvertToStreamOptions,
  convertToMappedRam,
  convertToMultifd,
  convertToStream,
} from './tasks/convert/convert.ts';
export { requireDomain, type StreamedFacts } from './tasks/convert/domain-agreement.ts';
export { type MergeToStreamOptions, mergeToMappedRam, mergeToStream, openMerged } from './tasks/convert/merge.ts';
export {
  type DevicesDiff,
  type DiffedVm,
  type DiffOptions,
  diff,
  diffDevices,
  diffVms,
  type FactDiff,
  type VmDiff,
} from './tasks/diff/diff.ts';
export {
  type BlockDiff,
  type DiffRamOptions,
  diffRam,
  isSameRam,
  type MapCell,
  type PageChanges,
  type RamDiff,
} from './tasks/diff/diff-ram.ts';
export type { PageRange } from './tasks/diff/page-ranges.ts';
export { type CompressionChoice, type CompressionFigure, usualLevels } from './tasks/estimate/compression-sample.ts';
export type { ConvergenceVerdict, ModeEstimate, Target } from './tasks/estimate/convergence.ts';
export {
  type Dirtying,
  type DirtyingName,
  dirtyingAt,
  dirtyingThrough,
  findWorkingSet,
} from './tasks/estimate/dirtying.ts';
export {
  type Changes,
  type Estimate,
  type EstimatedCompression,
  type EstimateOptions,
  type EstimateStep,
  estimate,
  estimateDefaults,
  type RunningMeasurement,
} from './tasks/estimate/estimate.ts';
export { estimateRunning, type RunningFacts, type RunningOptions } from './tasks/estimate/estimate-running.ts';
export {
  type BlockMakeUp,
  type MakeUpOptions,
  type MemoryComposition,
  measureComposition,
  type PageMakeUp,
} from './tasks/estimate/memory-composition.ts';
export type { PageEntropy } from './tasks/estimate/page-entropy.ts';
export type { PageGroup, PageSample } from './tasks/estimate/page-sample.ts';
export {
  type PrecopyMemory,
  type PrecopyOptions,
  type PrecopyPass,
  type PrecopyPrediction,
  simulatePrecopy,
  type XbzrleFigures,
} from './tasks/estimate/precopy-model.ts';
export {
  type CacheSize,
  type ChangeCounts,
  measureChanges,
  type RamChanges,
  type RamChangesOptions,
  type XbzrleSizes,
} from './tasks/estimate/ram-changes.ts';
export type { Recommendation } from './tasks/estimate/recommend.ts';
export type { Random } from './tasks/estimate/seeded-random.ts';
export type { AcpiMemory } from './tasks/extract/acpi-memory.ts';
export type { CoreSegment } from './tasks/extract/core/elf-core.ts';
export {
  type ChooseOutput,
  type ExtractBlocksOptions,
  type ExtractedBlock,
  extractBlocks,
} from './tasks/extract/extract.ts';
export type { LaidOutOptions } from './tasks/extract/laid-out-vm.ts';
export type { DevicePlaceFrom, MemoryDevice, StatedDevice } from './tasks/extract/memory-devices.ts';
export type { PhysicalRange } from './tasks/extract/memory-map.ts';
export type { Chipset, DeviceBody } from './tasks/extract/pc-chipset.ts';
export {
  type CoreOutput,
  type ExtractedPhysical,
  extractElf,
  extractPhysical,
  type MappedOptions,
  openPhysical,
  type PhysicalMemory,
  type PhysicalOptions,
  type PhysicalOutput,
  storeOutput,
} from './tasks/extract/physical.ts';
export {
  type Assumption,
  type LayoutFacts,
  type LayoutOptions,
  layOutPhysical,
  type PcLayout,
  type PhysicalLayout,
} from './tasks/extract/physical-layout.ts';
export type { Above4gFrom, SplitFrom } from './tasks/extract/ram-split.ts';
export { mainBlock, openRange, type RamRange, type RangeOptions, readRam } from './tasks/extract/range.ts';
export type { AddressRange, MemoryAffinity, MemoryNode } from './tasks/extract/srat.ts';
export type { PageCounts, RecordCount } from './tasks/inspect/flow-stats.ts';
export {
  type InspectedBlock,
  type InspectedContainer,
  type InspectedSection,
  type InspectedSnapshot,
  type Inspection,
  type InspectOptions,
  type InspectResult,
  inspect,
  mapPages,
} from './tasks/inspect/inspect.ts';
export { PagePasses } from './tasks/inspect/page-passes.ts';
export type { InspectedReturnPath } from './tasks/inspect/return-path.ts';
export { type Verification, type VerifyOptions, verify } from './tasks/inspect/verify.ts';
export {
  type AsJson,
  type CheckJson,
  type ConvertChangesJson,
  type ConvertJson,
  type DeviceDiffJson,
  type DeviceFactsJson,
  type DeviceJson,
  type DiffJson,
  type ErrorJson,
  type EstimateJson,
  type ExtractDeviceJson,
  type ExtractJson,
  type ExtractPhysicalJson,
  type InspectDevicesJson,
  type InspectJson,
  type InspectSnapshotsJson,
  jsonReplacer,
  jsonVersion,
  type MergeJson,
  type MissingJson,
  type ReadJson,
  type RegistersJson,
  type ResumeMapJson,
  type SearchCountJson,
  type SearchJson,
  type SearchMissingJson,
  type StateFieldJson,
  type StateJson,
  type StateValueJson,
  type VerifyFilesJson,
  type VerifyJson,
  type VersionedJson,
} from './tasks/json.ts';
export type { MappedBlock } from './tasks/resume/mapped-blocks.ts';
export { type Resume, type ResumeOptions, resumeArguments } from './tasks/resume/resume-arguments.ts';
export type { FindData } from './tasks/resume/stale-pages.ts';
export type { ToText } from './tasks/search/finder.ts';
export {
  type BytePattern,
  hexPattern,
  maxMatchBytes,
  type SearchPattern,
  type TextPatternOptions,
  textPattern,
} from './tasks/search/pattern.ts';
export {
  countMatches,
  type Match,
  type MatchOptions,
  maxPatterns,
  Searcher,
  type SearchOptions,
  search,
} from './tasks/search/search.ts';
export { type AutoClosed, asyncDispose } from './vm/auto-closed.ts';
export { isBitSet } from './vm/bits.ts';
export type { DeviceDescription, FieldDescription, StateDescription, VmDescription } from './vm/description.ts';
export { reportedDirtyRate, type SampledPages, sampleCount, samplePagesOf } from './vm/dirty-rate.ts';
export type * from './vm/flow.ts';
export type { DirtyBitmap } from './vm/flow.ts';
export { type DirtyTracking, type Guest, type GuestBlock, stoppedGuest } from './vm/guest.ts';
export {
  type Finding,
  type FindingCode,
  type FindingReason,
  findingCodes,
  formatPlace,
  incompleteCodes,
  MigrationError,
  type Place,
  type PlaceOrigin,
  type Severity,
  type Verdict,
  verdictOf,
} from './vm/migration-error.ts';
export { PageBitmap } from './vm/page-bitmap.ts';
export { discardedState, type PageRun, PageStates, type PageTally, type StatesPiece } from './vm/page-states.ts';
export { type MappedPlace, maxRamBytes, pageCount, type RamBlock } from './vm/ram-block.ts';
export type { OpenedRam, PageState, RamReader } from './vm/ram-store.ts';
export type { Framing, RawSection, SavedDevices, SavedVm, WritableDevice, WritableVm } from './vm/saved-vm.ts';
export * from './wire/encoders.ts';
export type { ReturnMessage } from './wire/return-path.ts';
export type { WrittenChannel } from './write/channel-writer.ts';
export type { BlockChanges } from './write/delta-scan.ts';
export { encodeFlow, FlowWriter, type FlowWriterOptions } from './write/flow-writer.ts';
export {
  MultifdWriter,
  type MultifdWriterOptions,
  multifdArenaBytes,
} from './write/multifd-writer.ts';
export type { WrittenBlock } from './write/passes.ts';
export { type KeptBitmap, type NewSnapshot, WritableQcow2, type WriteVmState } from './write/qcow2/qcow2-image.ts';
export { RamScan, ramScanArenaBytes, type ScannedBlock, type ScannedRam } from './write/ram-scan.ts';
export { StreamWriter, type StreamWriterOptions, writerArenaBytes } from './write/stream-writer.ts';
export { type WriteGuestOptions, type WrittenGuest, writeGuest } from './write/write-guest.ts';
export { type WriteMappedRamOptions, type WrittenMappedRam, writeMappedRam } from './write/write-mapped-ram.ts';
export { type WriteMultifdOptions, type WrittenMultifd, writeMultifd } from './write/write-multifd.ts';
export {
  type WriteStreamOptions,
  type WrittenStream,
  writeStream,
} from './write/write-stream.ts';
export {
  defaultXbzrleCacheSize,
  type PassContext,
  XbzrleCache,
  type XbzrleCacheOptions,
  XbzrleCounters,
  type XbzrleStatistics,
  xbzrleArenaBytes,
} from './write/xbzrle-cache.ts';
