/** What belongs to a migration beside its file: channels, the streams before a recovery, what the destination said. */
import type { ByteSource } from '../io/byte-source.ts';

/** Each one input, or several. */
export interface Parts<Input = ByteSource> {
  /** The channels of a multifd migration whose main stream the file is: all of them, in any order. */
  channels?: Input | readonly Input[];
  /** The streams that broke off in postcopy before the file, which is then a recovery stream, in their order. */
  resumeOf?: Input | readonly Input[];
  /** Captures of the preempt channel, one for each stream that had one, in the same order. */
  preempt?: Input | readonly Input[];
  /** Captures of what the destination said, for display. */
  returnPath?: Input | readonly Input[];
}

/** The parts as lists. */
export type PartLists<Input = ByteSource> = { readonly [part in keyof Required<Parts>]: readonly Input[] };

function listOf<Input>(inputs: Input | readonly Input[] | undefined): readonly Input[] {
  return inputs === undefined ? [] : Array.isArray(inputs) ? inputs : [inputs as Input];
}

export function listParts<Input>({ channels, resumeOf, preempt, returnPath }: Parts<Input>): PartLists<Input> {
  return {
    channels: listOf(channels),
    resumeOf: listOf(resumeOf),
    preempt: listOf(preempt),
    returnPath: listOf(returnPath),
  };
}

/** The parts with each input replaced by what `open` makes of it, one after the other. */
export async function mapParts<Input, Output>(
  parts: Parts<Input>,
  open: (input: Input) => Output | Promise<Output>,
): Promise<PartLists<Output>> {
  const openAll = async (inputs: readonly Input[]) => {
    const outputs: Output[] = [];
    for (const input of inputs) outputs.push(await open(input));
    return outputs;
  };
  const { channels, resumeOf, preempt, returnPath } = listParts(parts);
  return {
    channels: await openAll(channels),
    resumeOf: await openAll(resumeOf),
    preempt: await openAll(preempt),
    returnPath: await openAll(returnPath),
  };
}
