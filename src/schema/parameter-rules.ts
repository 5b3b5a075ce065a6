/**
 * What parameters may be, in the order in which QEMU looks (docs/qmp.md). All values are checked as they would be after
 * the change; the first wrong one decides.
 */
import { type Capabilities, refuseZeroCopy } from './capability-rules.ts';
import { type Parameter, parameters as table } from './qapi/parameters.ts';

/** The values of all parameters, by name. Integers above 2^53 are bigints. */
export type ParameterValues = Readonly<Record<string, unknown>>;

/** QEMU's order. Parameters without a range are not in it. */
const order = [
  ...['compress-level', 'compress-threads', 'decompress-threads', 'throttle-trigger-threshold', 'cpu-throttle-initial'],
  ...['cpu-throttle-increment', 'downtime-limit', 'multifd-channels', 'multifd-zlib-level', 'multifd-qatzip-level'],
  ...['multifd-zstd-level', 'xbzrle-cache-size', 'max-cpu-throttle', 'announce-initial', 'announce-max'],
  ...['announce-rounds', 'announce-step', 'block-bitmap-mapping', 'x-vcpu-dirty-limit-period', 'vcpu-dirty-limit'],
];

const parameters: Readonly<Record<string, Parameter>> = table;

/** The size of a page, which a cache for XBZRLE must have at least. */
const pageSize = 4096n;

/**
 * QEMU's text for the first value that is not allowed.
 * @param before what was set before the change
 */
export function refuseParameters(
  values: ParameterValues,
  before: ParameterValues,
  on: Capabilities,
): string | undefined {
  for (const name of order) {
    const refused = values[name] === undefined ? undefined : refuse(name, values);
    if (refused !== undefined) return refused;
  }
  // QEMU looks at the values that were set before, not at the new ones.
  if (on.has('mapped-ram') && (before['multifd-compression'] !== 'none' || before['tls-creds'] !== '')) {
    return 'Mapped-ram only available for non-compressed non-TLS multifd migration';
  }
  return refuseZeroCopy(on, values);
}

function refuse(name: string, values: ParameterValues): string | undefined {
  const parameter = parameters[name];
  if (parameter === undefined) return undefined;
  const { expects, errorName = name.replaceAll('-', '_') } = parameter;
  if (name === 'block-bitmap-mapping') return refuseMapping(values[name] as BitmapMapping);
  const value = BigInt(values[name] as number | bigint);
  if (name === 'vcpu-dirty-limit') {
    return value >= 1n ? undefined : "Parameter 'vcpu_dirty_limit' must be greater than 1 MB/s";
  }
  return isInRange(name, value, values) ? undefined : `Parameter '${errorName}' expects ${expects}`;
}

function isInRange(name: string, value: bigint, values: ParameterValues): boolean {
  if (name === 'xbzrle-cache-size') return value >= pageSize && (value & (value - 1n)) === 0n;
  const [least, most] = parameters[name]?.range ?? [0, 0];
  if (name === 'max-cpu-throttle' && value < BigInt(values['cpu-throttle-initial'] as number)) return false;
  return value >= BigInt(least) && value <= BigInt(most);
}

/** The value of block-bitmap-mapping. */
type BitmapMapping = readonly {
  readonly 'node-name': string;
  readonly alias: string;
  readonly bitmaps: readonly { readonly name: string; readonly alias: string }[];
}[];

const bytesOf = (text: string) => new TextEncoder().encode(text).length;

function refuseMapping(nodes: BitmapMapping): string | undefined {
  const text = mappingError(nodes, 'name') ?? mappingError(nodes, 'alias');
  return text === undefined ? undefined : `Invalid mapping given for block-bitmap-mapping: ${text}`;
}

/** Looks at one direction: from names here to names in the stream, or back. */
function mappingError(nodes: BitmapMapping, from: 'name' | 'alias'): string | undefined {
  const seen = new Set<string>();
  for (const node of nodes) {
    const { 'node-name': name, alias } = node;
    if (!/^[A-Za-z][\w.-]*$/.test(alias)) return `The node alias '${alias}' is not well-formed`;
    if (bytesOf(alias) > 255) return `The node alias '${alias}' is longer than 255 bytes`;
    if (bytesOf(name) > 31) return `The node name '${name}' is longer than 31 bytes`;
    const key = from === 'name' ? name : alias;
    if (seen.has(key)) {
      return from === 'name' ? `The node name '${name}' is mapped twice` : `The node alias '${alias}' is used twice`;
    }
    seen.add(key);
    const wrong = bitmapError(node, from);
    if (wrong !== undefined) return wrong;
  }
  return undefined;
}

function bitmapError({ 'node-name': node, alias: nodeAlias, bitmaps }: BitmapMapping[number], from: 'name' | 'alias') {
  const seen = new Set<string>();
  for (const { name, alias } of bitmaps) {
    if (bytesOf(alias) > 255) return `The bitmap alias '${alias}' is longer than 255 bytes`;
    if (bytesOf(name) > 1023) return `The bitmap name '${name}' is longer than 1023 bytes`;
    const key = from === 'name' ? name : alias;
    if (seen.has(key)) {
      return from === 'name'
        ? `The bitmap '${node}'/'${name}' is mapped twice`
        : `The bitmap alias '${nodeAlias}'/'${alias}' is used twice`;
    }
    seen.add(key);
  }
  return undefined;
}
