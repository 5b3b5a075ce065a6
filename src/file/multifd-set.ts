/** Tells the main stream of a multifd migration from its channels, by their first bytes (docs/formats/multifd.md). */
import type { ByteSource } from '../io/byte-source.ts';
import { multifdMagic } from '../wire/multifd-packet.ts';

/**
 * Of several files the one that is no channel, and the channels.
 * @throws RangeError if it is not exactly one that is no channel
 */
export async function sortMultifd<Input>(
  inputs: readonly Input[],
  openInput: (input: Input) => ByteSource,
): Promise<{ main: Input; channels: Input[] }> {
  const mains: Input[] = [];
  const channels: Input[] = [];
  const names: string[] = [];
  for (const input of inputs) {
    const source = openInput(input);
    const isIt = inputs.length > 1 && (await isChannel(source));
    if (!isIt) names.push(source.name);
    (isIt ? channels : mains).push(input);
  }
  const [main] = mains;
  if (main !== undefined && mains.length === 1) return { main, channels };
  const got = names.length === 0 ? `${inputs.length} channels without it` : names.join(', ');
  throw new RangeError(`expected one file, or the main stream of a multifd migration with its channels, got ${got}`);
}

async function isChannel(source: ByteSource): Promise<boolean> {
  const head = new Uint8Array(4);
  const count = await source.read(head, 0);
  return count === head.length && new DataView(head.buffer).getUint32(0) === multifdMagic;
}
