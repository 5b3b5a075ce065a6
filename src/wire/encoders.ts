/**
 * The encoders of single structures, for programs that write their own flow. Each appends one structure to a
 * {@link ByteWriter}, independent of its surroundings. Whole streams and files are written in `write/`.
 */
export { ByteWriter } from './byte-writer.ts';
export { CommandCode, encodeCommand } from './command.ts';
export { encodeConfiguration } from './configuration.ts';
export { encodeMappedHeader, placeMapped } from './mapped-ram.ts';
export {
  type DevicePacket,
  encodeDevicePacket,
  encodeMultifdHeader,
  encodeMultifdHello,
  type MultifdHeader,
  type MultifdHello,
  multifdHeaderLength,
  multifdPacketPages,
  type PacketMethod,
} from './multifd-packet.ts';
export { type Discard, encodeDiscard, encodeRecvBitmap } from './postcopy.ts';
export { encodePageRecord, type PageRecord } from './ram-record-encoder.ts';
export { encodeBlockEntry, encodeEos, encodeMemSize, encodeMultifdFlush, ramVersion } from './ram-section.ts';
export { encodeReturnMessage, ReturnType } from './return-path.ts';
export { encodeFooter, encodeSectionHead } from './section.ts';
export { SectionType } from './section-type.ts';
export { encodeStreamHeader } from './stream.ts';
export { encodeDescription } from './vm-description.ts';
