/** `inspect --devices`, `inspect --device` and `extract --device`: the state of devices, in words, as a tree, and as JSON. */

import { deviceToJson } from '../devices/device-json.ts';
import type { DeviceState } from '../devices/device-state.ts';
import { readVirtioDevice } from '../devices/virtio-device.ts';
import { readX86Registers } from '../devices/x86-registers.ts';
import { isReplaceable, OutputFile } from '../io/node/output-file.ts';
import { openInPlace } from '../io/node/output-in-place.ts';
import type { MigrationFile } from '../read/open.ts';
import { type ReadDevices, readDevices } from '../store/devices.ts';
import { type DeviceFactsJson, type ExtractDeviceJson, type InspectDevicesJson, jsonVersion } from '../tasks/json.ts';
import { formatPlace, MigrationError } from '../vm/migration-error.ts';
import { describeDevice } from '../words/device-words.ts';
import { ExitCode, UsageError } from './exit-codes.ts';
import { type Printable, toJson, type Unversioned } from './json.ts';
import { warn } from './messages.ts';
import { drawDevice } from './print/device-tree.ts';
import { formatCount, formatHex, formatTable, painter, plural, printable } from './print/format.ts';
import { drawVirtio } from './print/virtio.ts';
import { drawRegisters, registersToJson } from './print/x86-registers.ts';
import { writeOut } from './run.ts';

export interface DeviceOptions {
  devices?: boolean;
  device?: string;
  json?: boolean;
}

/** Prints the list of devices, or one of them. A file that breaks off is shown as far as it goes. */
export async function showDevices(file: MigrationFile, options: DeviceOptions): Promise<void> {
  const read = await readDevices(file);
  const error = read.error ?? read.errors[0];
  if (error !== undefined) process.exitCode = ExitCode.badInput;
  if (options.device !== undefined) {
    const device = chooseDevice(read.devices, options.device);
    for (const text of inPieces(options.json === true ? deviceJson(device) : describeOne(device))) await writeOut(text);
  } else if (options.json === true) {
    await writeOut(toJson<InspectDevicesJson>(listToJson(file, read)));
  } else {
    await writeOut(`${describeAll(file, read)}\n`);
    return;
  }
  if (read.error === undefined) return;
  warn(MigrationError.from(read.error).message);
}

/**
 * Writes a device as JSON to a file, or to standard output for `-`.
 * @throws MigrationError if the file is bad: a device may be missing, or come again later
 */
export async function extractDevice(file: MigrationFile, wanted: string, path: string, isJson: boolean): Promise<void> {
  const { devices, errors, error } = await readDevices(file);
  const bad = error ?? errors[0];
  if (bad !== undefined) throw MigrationError.from(bad);
  const device = chooseDevice(devices, wanted);
  await writeTexts(path, inPieces(deviceJson(device)));
  if (path === '-') return;
  const report = { source: file.source.name, path, device: factsOf(device) };
  const line = `${printable(path)}: ${printable(nameOf(device))}\n`;
  process.stdout.write(isJson ? toJson<ExtractDeviceJson>(report) : line);
}

async function writeTexts(path: string, texts: Iterable<string>): Promise<void> {
  if (path === '-') {
    for (const text of texts) await writeOut(text);
    return;
  }
  if (!isReplaceable(path)) {
    const output = await openInPlace(path);
    try {
      for (const text of texts) await output.write(new TextEncoder().encode(text));
    } finally {
      await output.close();
    }
    return;
  }
  const output = new OutputFile(path);
  try {
    let at = 0;
    for (const text of texts) {
      const bytes = new TextEncoder().encode(text);
      await output.file.write(bytes, at);
      at += bytes.length;
    }
    await output.commit();
  } catch (error) {
    await output.abandon();
    throw error;
  }
}

/** A device as JSON, in pieces. An x86 CPU has its registers by their names. */
function* deviceJson(device: DeviceState): Generator<string, void> {
  const registers = device.state === undefined ? undefined : readX86Registers(device.state);
  yield `{\n  "jsonVersion": ${jsonVersion},`;
  const more = registers === undefined ? {} : { registers: JSON.stringify(registersToJson(registers)) };
  let isFirst = true;
  for (const piece of deviceToJson(device, more)) {
    // Its own brace is already there.
    yield isFirst ? piece.slice(1) : piece;
    isFirst = false;
  }
}

/**
 * Finds the device that `wanted` names, as NAME or NAME#INSTANCE. NAME is the whole idstr, or its end after a slash.
 * @throws UsageError if there is none, or more than one
 */
function chooseDevice(devices: readonly DeviceState[], wanted: string): DeviceState {
  const [, name = wanted, instance] = /^(.*)#(\d+)$/s.exec(wanted) ?? [];
  const isInstance = ({ instanceId }: DeviceState) => instance === undefined || instanceId === Number(instance);
  const exact = devices.filter((device) => device.name === name && isInstance(device));
  const found = exact.length > 0 ? exact : devices.filter((each) => each.name.endsWith(`/${name}`) && isInstance(each));
  const [device] = found;
  if (device !== undefined && found.length === 1) return device;
  if (device === undefined) {
    const names = devices.map(nameOf).join(', ');
    throw new UsageError(`expected a device in the file (${names || 'it has none'}), got "${wanted}"`);
  }
  throw new UsageError(
    `expected the name of one device, got "${wanted}", which may be ${found.map(nameOf).join(' or ')}`,
  );
}

const nameOf = ({ name, instanceId }: DeviceState) => `${name}#${instanceId}`;

interface Share {
  bytes: number;
  undecodedBytes: number;
}

function share(devices: readonly DeviceState[]): Share {
  return {
    bytes: devices.reduce((sum, { length }) => sum + length, 0),
    undecodedBytes: devices.reduce((sum, { undecodedBytes }) => sum + undecodedBytes, 0),
  };
}

function factsOf(device: DeviceState): Printable<DeviceFactsJson> {
  const { name, instanceId, versionId, offset, length, undecodedBytes, problem } = device;
  return { name, instanceId, versionId, offset, length, undecodedBytes, problem };
}

function listToJson(
  file: MigrationFile,
  { devices, configuration, errors, error }: ReadDevices,
): Unversioned<InspectDevicesJson> {
  return {
    source: file.source.name,
    machine: configuration?.machine,
    ...share(devices),
    devices: devices.map((device) => ({ ...factsOf(device), about: describeDevice(device, devices) })),
    findings: errors,
    error,
  };
}

function describeAll(file: MigrationFile, { devices, errors, error }: ReadDevices): string {
  const paint = painter(process.stdout);
  const { bytes, undecodedBytes } = share(devices);
  const percent = bytes === 0 ? 0 : Number(((undecodedBytes / bytes) * 100).toPrecision(3));
  const rows = [['offset', 'bytes', 'device', 'instance', 'version', 'about']];
  for (const device of devices) {
    const about = describeDevice(device, devices);
    const problem = device.problem === undefined ? [] : [`not decoded: ${device.problem}`];
    rows.push([
      formatHex(device.offset),
      formatCount(device.length),
      printable(device.name),
      String(device.instanceId),
      String(device.versionId),
      printable([...about, ...problem].join(', ')),
    ]);
  }
  const lines = [
    paint('bold', printable(file.source.name)),
    `  ${plural(devices.length, 'device')}, undecoded ${formatCount(undecodedBytes)} of ${formatCount(bytes)} bytes (${percent} %)`,
    '',
    formatTable(rows, ['right', 'right', 'left', 'right', 'right', 'left']),
  ];
  for (const finding of [...errors, ...(error === undefined ? [] : [error])]) {
    const { code, message, place } = finding;
    lines.push('', `${paint('red', 'error')} ${code}: ${printable(message)} in ${printable(formatPlace(place))}`);
  }
  return lines.join('\n');
}

function* describeOne(device: DeviceState): Generator<string, void> {
  const paint = painter(process.stdout);
  const { name, instanceId, versionId, offset, length, state } = device;
  const title = paint('bold', printable(`${name}#${instanceId}`));
  yield `${title}, version ${versionId}, ${formatCount(length)} bytes at ${formatHex(offset)}\n\n`;
  const registers = state === undefined ? undefined : readX86Registers(state);
  if (registers !== undefined) yield `${drawRegisters(registers)}\n`;
  const virtio = state === undefined ? undefined : readVirtioDevice(state);
  if (state !== undefined && virtio !== undefined) yield `${drawVirtio(virtio, state.vmsdName)}\n`;
  yield* drawDevice(device);
}

const pieceLength = 65_536;

/** Joins small texts to larger ones. */
function* inPieces(texts: Iterable<string>): Generator<string, void> {
  let piece = '';
  for (const text of texts) {
    piece += text;
    if (piece.length < pieceLength) continue;
    yield piece;
    piece = '';
  }
  yield piece;
}
