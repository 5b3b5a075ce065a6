/**
 * The encoders of single structures, for those who write a flow of their own: each puts one thing into a {@link ByteWriter}, and
 * knows nothing of what is around it. What makes whole streams and files of them is in `file/`.
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
