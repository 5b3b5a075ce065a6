/**
 * The facts of a libvirt domain XML that can be compared with a stream: name, UUID, machine, memory, and the memory
 * devices with their addresses (docs/formats/libvirt.md, "The domain XML"). The XML must be well-formed. Everything
 * else in it is ignored. `findDomain` in libvirt-header.ts finds the name alone, also in XML that is damaged.
 */
import { parseXml, XmlElement, XmlError } from '@rgrove/parse-xml';

/** The most characters of XML. libvirt itself accepts no more. */
const maxXmlLength = 4 << 20;

/** A memory device: a DIMM, NVDIMM, virtio-mem or another `<memory>` among the devices. */
export interface DomainMemoryDevice {
  /** The model, such as `dimm`, `nvdimm` or `virtio-mem`. */
  model: string;
  /** The device's id in QEMU, such as `dimm0`. Its RAM block is then `memdimm0` or `/objects/memdimm0`. */
  alias?: string;
  /** Bytes of the device. */
  size?: number;
  /** Guest-physical address. */
  base?: bigint;
  slot?: number;
  /** NUMA node of the guest. */
  node?: number;
}

/** What a domain XML says. A fact that it does not state is undefined. */
export interface DomainFacts {
  /** The kind of hypervisor, such as `kvm` or `qemu`. */
  type?: string;
  name?: string;
  /** 32 hex digits, in lower case. */
  uuid?: string;
  /** Machine type, such as `pc-q35-10.0`, or an alias, such as `q35`. */
  machine?: string;
  /** Architecture of the guest, such as `x86_64`. */
  arch?: string;
  /** Bytes of memory, memory devices included. */
  memory?: number;
  /** Bytes that the balloon leaves to the guest. */
  currentMemory?: number;
  /** Bytes of memory after all possible memory devices are plugged in. */
  maxMemory?: number;
  memoryDevices: DomainMemoryDevice[];
}

/**
 * Reads a domain XML.
 * @throws RangeError if it is not well-formed, describes no domain, or has a size, UUID or address that is malformed
 */
export function readDomain(xml: string): DomainFacts {
  const domain = parseDomain(xml);
  const os = find(domain, 'os', 'type');
  return {
    ...present('type', domain.attributes.type),
    ...present('name', textOf(find(domain, 'name'))),
    ...present('uuid', uuidOf(find(domain, 'uuid'))),
    ...present('machine', os?.attributes.machine),
    ...present('arch', os?.attributes.arch),
    ...present('memory', sizeOf(find(domain, 'memory'))),
    ...present('currentMemory', sizeOf(find(domain, 'currentMemory'))),
    ...present('maxMemory', sizeOf(find(domain, 'maxMemory'))),
    memoryDevices: elements(find(domain, 'devices'), 'memory').map(memoryDevice),
  };
}

function parseDomain(xml: string): XmlElement {
  if (xml.length > maxXmlLength) {
    throw new RangeError(`expected at most ${maxXmlLength} characters of domain XML, got ${xml.length}`);
  }
  let root: XmlElement | null;
  try {
    ({ root } = parseXml(xml));
  } catch (error) {
    // The parser descends into elements by recursion. Its stack ends with a RangeError.
    if (error instanceof XmlError) throw new RangeError(`the domain XML is not well-formed: ${firstLine(error)}`);
    if (error instanceof RangeError) throw new RangeError('the elements of the domain XML are nested too deeply');
    throw error;
  }
  if (root?.name === 'domain') return root;
  throw new RangeError(`expected the XML of a domain, got the element <${root?.name}>`);
}

/** The parser adds an excerpt in further lines. */
const firstLine = ({ message }: XmlError) => message.split('\n', 1)[0];

function memoryDevice(device: XmlElement): DomainMemoryDevice {
  const target = find(device, 'target');
  const address = find(device, 'address');
  // A DIMM is addressed by slot and base. A virtio-mem device is addressed by its PCI slot, and its target has the base.
  const place = address?.attributes.type === 'dimm' ? address : find(target, 'address');
  return {
    model: device.attributes.model ?? '',
    ...present('alias', find(device, 'alias')?.attributes.name),
    ...present('size', sizeOf(find(target, 'size'))),
    ...present('base', integerOf(place, 'base')),
    ...present('slot', numberOf(integerOf(place, 'slot'))),
    ...present('node', numberOf(integerText(textOf(find(target, 'node')), 'node'))),
  };
}

function present<Key extends string, Value>(key: Key, value: Value | undefined): { [K in Key]?: Value } {
  return value === undefined ? {} : ({ [key]: value } as { [K in Key]?: Value });
}

/** The first element at the end of a path of names. */
function find(from: XmlElement | undefined, ...names: string[]): XmlElement | undefined {
  return names.reduce<XmlElement | undefined>((element, name) => elements(element, name)[0], from);
}

function elements(parent: XmlElement | undefined, name: string): XmlElement[] {
  const children = parent?.children ?? [];
  return children.filter((child): child is XmlElement => child instanceof XmlElement && child.name === name);
}

const textOf = (element: XmlElement | undefined): string | undefined => element?.text.trim();

function uuidOf(element: XmlElement | undefined): string | undefined {
  const text = textOf(element);
  if (text === undefined) return undefined;
  const digits = text.replaceAll(/[-\s]/g, '').toLowerCase();
  if (/^[0-9a-f]{32}$/.test(digits)) return digits;
  throw new RangeError(`expected a UUID in <uuid> of the domain XML, got "${text}"`);
}

const powers = ['', 'k', 'm', 'g', 't', 'p', 'e'];

/** An element with a size: KiB, unless its attribute `unit` says something else. */
const sizeOf = (element: XmlElement | undefined) =>
  element && parseSize(element.text.trim(), element.attributes.unit, element.name);

/** libvirt's units, in any case: b and bytes; k and KiB (2^10), KB (10^3), and so on up to E. */
function parseSize(text: string, unit = 'KiB', element: string): number {
  const [, letter = '', end] = /^([kmgtpe])(ib|b)?$/i.exec(unit) ?? [];
  const isBytes = /^(b|bytes)$/i.test(unit);
  const base = end?.toLowerCase() === 'b' ? 1000 : 1024;
  const size = Number(text) * base ** powers.indexOf(letter.toLowerCase());
  if (/^\d+$/.test(text) && (isBytes || letter !== '') && Number.isSafeInteger(size)) return size;
  throw new RangeError(`expected a size such as 4 GiB in <${element}> of the domain XML, got "${text} ${unit}"`);
}

const integerOf = (element: XmlElement | undefined, name: string) => integerText(element?.attributes[name], name);

/** Decimal, or hex after 0x. */
function integerText(text: string | undefined, name: string): bigint | undefined {
  if (text === undefined) return undefined;
  if (/^(0x[0-9a-f]{1,16}|\d{1,20})$/i.test(text)) return BigInt(text);
  throw new RangeError(`expected a number as ${name} in the domain XML, got "${text}"`);
}

const numberOf = (value: bigint | undefined) => (value === undefined ? undefined : Number(value));
