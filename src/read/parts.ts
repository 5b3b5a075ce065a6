/** The other captures of a migration: multifd channels, the streams before a recovery, preempt channels, return paths. */
import type { ByteSource } from '../io/byte-source.ts';

/** The other captures of a migration: one input or a list for each kind. */
export interface Parts<Input = ByteSource> {
  /** All channels of a multifd migration, in any order. The file is its main stream. */
  channels?: Input | readonly Input[];
  /** The earlier streams that broke off in postcopy, in their order. The file is the recovery stream after them. */
  resumeOf?: Input | readonly Input[];
  /** Captures of preempt channels, in the order of the streams that had one. */
  preempt?: Input | readonly Input[];
  /** Captures of return paths (what the destination sent back), for display. */
  returnPath?: Input | readonly Input[];
}

/** The parts as lists. */
export type PartLists<Input = ByteSource> = { readonly [part in keyof Required<Parts>]: readonly Input[] };

function listOf<Input>(inputs: Input | readonly Input[] | undefined): readonly Input[] {
  return inputs === undefined ? [] : Array.isArray(inputs) ? inputs : [inputs as Input];
}

/** Makes a list of each part. */
export function listParts<Input>({ channels, resumeOf, preempt, returnPath }: Parts<Input>): PartLists<Input> {
  return {
    channels: listOf(channels),
    resumeOf: listOf(resumeOf),
    preempt: listOf(preempt),
    returnPath: listOf(returnPath),
  };
}

/** Replaces each input by the result of `open`, one input at a time. */
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
