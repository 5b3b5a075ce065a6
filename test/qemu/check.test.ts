/**
 * Compares the verdict of `check` with real QEMU: one QEMU saves a guest, another tries to load it, and its success
 * decides. QEMU's behaviour in the same run is the only expectation. The essential pairs run with `npm run test:qemu`;
 * VMFERRY_QEMU=full runs all.
 */
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { afterAll, describe, expect, test } from 'vitest';
import { type Check, type CheckTarget, check, open, parseVmstateDump, readTarget } from '../../src/node.ts';
import { fixturePath } from '../fixture-files.ts';
import { startDestination } from './machine.ts';
import { findQemu, Qemu, type QemuVersion, qemuVersions } from './qemu.ts';
import { lacksQemu } from './require.ts';
import { waitForFile } from './wait-until.ts';

interface Config {
  /** Default: pc-i440fx-7.2, which both versions have. */
  machine?: string;
  /** Properties of the machine. */
  properties?: string;
  args?: readonly string[];
  capabilities?: readonly string[];
  /** How long the firmware runs before saving, in ms; default: the guest never runs. */
  runs?: number;
}

const manyDevices = [
  ...['VGA', 'virtio-net-pci', 'e1000e', 'virtio-scsi-pci', 'virtio-serial-pci', 'virtio-rng-pci', 'virtio-gpu-pci'],
  ...['qemu-xhci,id=xhci', 'usb-tablet,bus=xhci.0', 'rtl8139', 'lsi53c895a', 'megasas', 'ich9-ahci', 'usb-ehci'],
  ...[
    'piix3-usb-uhci',
    'virtio-keyboard-pci',
    'vmxnet3',
    'pci-serial',
    'sdhci-pci',
    'i6300esb',
    'vmcoreinfo',
    'vmgenid',
  ],
  ...['pcie-root-port,id=root', 'pci-bridge,chassis_nr=2', 'virtio-balloon-pci', 'pvpanic', 'bochs-display'],
];
const device = (...devices: string[]): Config => ({ args: devices.flatMap((name) => ['-device', name]) });

const configs = {
  base: {},
  q35: { machine: 'pc-q35-7.2' },
  older: { machine: 'pc-i440fx-7.1' },
  newest: { machine: 'pc' },
  none: { machine: 'none' },
  net: device('virtio-net-pci'),
  netElsewhere: device('virtio-net-pci,addr=7'),
  netModern: device('virtio-net-pci,disable-legacy=on'),
  netWithoutRom: device('virtio-net-pci,romfile='),
  netQueues: device('virtio-net-pci,mq=on'),
  oneQueue: device('virtio-scsi-pci,num_queues=1'),
  fourQueues: device('virtio-scsi-pci,num_queues=4'),
  vga: device('VGA'),
  vga32: device('VGA,vgamem_mb=32'),
  serial: { args: ['-chardev', 'null,id=x', '-device', 'isa-serial,chardev=x'] },
  newNic: device('igb'),
  scsi: device('am53c974'),
  e1000e: device('e1000e'),
  e1000eSubsystem: device('e1000e,subsys=17'),
  timers: { args: ['-global', 'hpet.timers=4'] },
  more: { args: ['-m', '32'] },
  dimms: { args: ['-m', '16,slots=2,maxmem=128M'] },
  cpus: { args: ['-smp', '2'] },
  cpuMax: { args: ['-cpu', 'max'] },
  noHpet: { properties: 'hpet=off' },
  noSmm: { properties: 'smm=off' },
  noFooters: { args: ['-global', 'migration.send-section-footer=off'] },
  uuid: { args: ['-uuid', '01234567-89ab-cdef-0011-223344556677'], capabilities: ['validate-uuid'] },
  otherUuid: { args: ['-uuid', '01234567-89ab-cdef-0011-223344556688'], capabilities: ['validate-uuid'] },
  many: device(...manyDevices),
  manyRan: { ...device(...manyDevices), runs: 1500 },
  manyQ35: { ...device(...manyDevices), machine: 'pc-q35-7.2' },
  manyQ35Ran: { ...device(...manyDevices), machine: 'pc-q35-7.2', runs: 1500 },
} satisfies Record<string, Config>;
type Name = keyof typeof configs;

interface Pair {
  from: [QemuVersion, Name];
  to: [QemuVersion, Name];
  essential?: boolean;
  /** A target file leaves doubts: neither file has the facts that decide. */
  doubtful?: boolean;
}

const same = (
  from: Name,
  to: Name,
  versions: readonly QemuVersion[] = qemuVersions,
  essential: QemuVersion[] = [],
): Pair[] =>
  versions.map((version) => ({ from: [version, from], to: [version, to], essential: essential.includes(version) }));
const across = (from: Name, to: Name, essential = false, more: Partial<Pair> = {}): Pair[] => [
  { from: ['7.2', from], to: ['10.0', to], essential, ...more },
  { from: ['10.0', from], to: ['7.2', to], essential, ...more },
];
const both = (a: Name, b: Name): Pair[] => [...same(a, b), ...same(b, a)];

const pairs: Pair[] = [
  ...same('base', 'base'),
  ...across('base', 'base', true),
  ...same('base', 'q35', qemuVersions, ['10.0']),
  ...same('q35', 'base'),
  ...both('base', 'older'),
  ...same('none', 'none'),
  ...across('none', 'none', true),
  ...both('none', 'base'),
  ...same('net', 'base', qemuVersions, ['7.2']),
  ...same('base', 'net', qemuVersions, ['10.0']),
  ...across('net', 'net'),
  ...same('net', 'netElsewhere'),
  ...both('net', 'netModern'),
  { from: ['10.0', 'net'], to: ['10.0', 'netModern'], essential: true },
  ...both('net', 'netWithoutRom'),
  ...both('net', 'netQueues'),
  ...both('oneQueue', 'fourQueues'),
  { from: ['10.0', 'fourQueues'], to: ['10.0', 'oneQueue'], essential: true },
  ...both('vga', 'vga32'),
  { from: ['7.2', 'vga'], to: ['10.0', 'vga32'], essential: true },
  ...across('vga', 'vga'),
  ...both('base', 'serial'),
  { from: ['10.0', 'serial'], to: ['10.0', 'base'], essential: true },
  ...across('scsi', 'scsi', true, { doubtful: true }),
  ...both('e1000e', 'e1000eSubsystem').map((pair) => ({ ...pair, doubtful: true })),
  ...both('base', 'timers').map((pair) => ({ ...pair, doubtful: true })),
  ...both('base', 'more'),
  { from: ['10.0', 'base'], to: ['10.0', 'more'], essential: true },
  ...both('base', 'dimms'),
  { from: ['10.0', 'base'], to: ['10.0', 'dimms'], essential: true },
  ...both('base', 'cpus'),
  { from: ['10.0', 'cpus'], to: ['10.0', 'base'], essential: true },
  { from: ['7.2', 'base'], to: ['7.2', 'cpus'], essential: true },
  ...both('base', 'cpuMax'),
  ...both('base', 'noHpet'),
  ...both('base', 'noSmm'),
  ...both('base', 'noFooters'),
  ...same('noFooters', 'noFooters'),
  ...both('uuid', 'base'),
  ...both('uuid', 'otherUuid'),
  ...same('manyRan', 'many'),
  ...across('manyRan', 'many'),
  { from: ['7.2', 'manyRan'], to: ['10.0', 'many'], essential: true },
  ...same('manyQ35Ran', 'manyQ35'),
  ...across('manyQ35Ran', 'manyQ35'),
];

const folder = mkdtempSync(join(tmpdir(), 'vmferry-check-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function argsOf({ machine = 'pc-i440fx-7.2', properties, args = [] }: Config): string[] {
  const type = [machine, ...(properties === undefined ? [] : [properties])].join();
  return ['-accel', 'tcg', '-nodefaults', '-no-user-config', '-vga', 'none', '-m', '16', '-M', type, ...args];
}

const made = new Map<string, Promise<string>>();
const once = (key: string, make: () => Promise<string>): Promise<string> => {
  const known = made.get(key) ?? make();
  made.set(key, known);
  return known;
};

/** A file that this QEMU saved with this configuration. */
const saved = (version: QemuVersion, name: Name): Promise<string> =>
  once(`${version} ${name}`, async () => {
    const config: Config = configs[name];
    const path = join(folder, `${version}-${name}`);
    const args = [...argsOf(config), ...(config.runs === undefined ? ['-S'] : [])];
    await using qemu = await Qemu.start({ version, args });
    // Firmware does not announce when it has set up the devices.
    if (config.runs !== undefined) await sleep(config.runs);
    await save(qemu, path, config.capabilities);
    return path;
  });

async function save(qemu: Qemu, path: string, capabilities: readonly string[] = []): Promise<void> {
  const uri = capabilities.includes('mapped-ram')
    ? `file:${path}`
    : `exec:cat > '${path}.part' && mv '${path}.part' '${path}'`;
  await qemu.migrate(uri, { capabilities, parameters: { 'max-bandwidth': 0 } });
  await waitForFile(path);
}

const dumped = (version: QemuVersion, machine: string): Promise<string> =>
  once(`${version} dump ${machine}`, async () => {
    const path = join(folder, `${version}-${machine}.json`);
    await promisify(execFile)(findQemu(version) as string, ['-M', machine, '-dump-vmstate', path]);
    return path;
  });

async function dumpTarget(version: QemuVersion, { machine = 'pc-i440fx-7.2' }: Config): Promise<CheckTarget> {
  const path = await dumped(version, machine);
  const origin = { source: path, coordinate: 'file' } as const;
  return { kind: 'vmstate-dump', name: path, dump: parseVmstateDump(readFileSync(path, 'utf8'), origin) };
}

async function fileTarget(path: string): Promise<CheckTarget> {
  const file = await open(path);
  try {
    return await readTarget(file);
  } finally {
    await file.close();
  }
}

async function judge(path: string, target: CheckTarget): Promise<Check> {
  const file = await open(path);
  try {
    return await check(file, target);
  } finally {
    await file.close();
  }
}

/** Whether a QEMU loads the file: undefined, or its error. */
async function refusal(
  version: QemuVersion,
  config: Config,
  path: string,
  capabilities: readonly string[] = [],
): Promise<string | undefined> {
  await using qemu = await Qemu.start({ version, args: [...argsOf(config), '-S', '-incoming', 'defer'] });
  return await loadInto(qemu, path, capabilities);
}

async function loadInto(qemu: Qemu, path: string, capabilities: readonly string[]): Promise<string | undefined> {
  await qemu.setCapabilities(capabilities);
  try {
    await qemu.execute('migrate-incoming', {
      uri: capabilities.includes('mapped-ram') ? `file:${path}` : `exec:cat '${path}'`,
    });
    await qemu.waitForMigration();
    return undefined;
  } catch (error) {
    const { message } = error as Error;
    // A slow load is not a refusal.
    if (/migration still \w+ after/.test(message)) throw error;
    return message;
  }
}

/** The name in QEMU's error. */
function namesIn(said: string): string[] {
  const patterns = [
    /Unknown ramblock "([^"]+)"/,
    /Size mismatch: (.+): 0x/,
    /section or instance '([^']+)'/,
    /for instance 0x\d+ of device '([^']+)'/,
    /Missing section footer for (\S+)/,
    /Machine type received is '([^']+)'/,
    /UUID received is (\S+)/,
  ];
  // An error in RAM also names the section; the block is more specific.
  const names = patterns.flatMap((pattern) => pattern.exec(said)?.[1] ?? []);
  return names.slice(0, 1);
}

const about = ({ reasons }: Check, effect: string) =>
  reasons
    .filter((reason) => reason.effect === effect)
    .map(({ message, place }) => `${place?.section ?? ''} ${place?.block ?? ''} ${message}`)
    .join('\n');

const isFull = process.env.VMFERRY_QEMU === 'full';
const wanted = pairs
  .filter(({ essential }) => isFull || essential)
  .map((pair) => ({ ...pair, name: `${pair.from.join(' ')} → ${pair.to.join(' ')}` }));

describe.skipIf(lacksQemu('7.2', '10.0'))('the verdict matches the QEMU that loads', () => {
  test.each(wanted)('$name', async ({ from, to, doubtful = false }) => {
    const path = await saved(...from);
    const [version, name] = to;
    const config: Config = configs[name];
    const said = await refusal(version, config, path);
    const byFile = await judge(path, await fileTarget(await saved(version, name)));
    const byDump = await judge(path, await dumpTarget(version, config));
    const explained = `QEMU: ${said ?? 'loaded'}\nby file: ${about(byFile, 'refused')}\nby dump: ${about(byDump, 'refused')}`;

    if (doubtful) expect(byFile.verdict, explained).toBe('doubtful');
    else expect(byFile.verdict, explained).toBe(said === undefined ? 'loads' : 'refused');
    if (said === undefined) expect(byDump.verdict, explained).not.toBe('refused');
    for (const stumbled of doubtful ? [] : namesIn(said ?? '')) expect(about(byFile, 'refused')).toContain(stumbled);
    // A dump's verdict says what a dump cannot show.
    expect(byDump.notJudged.join()).toMatch(/which devices.*values/);
  });
});

describe.skipIf(lacksQemu('7.2', '10.0'))('a dump shows', () => {
  test('a field added without a new version: QEMU 10.0 refuses an am53c974 of 7.2', async () => {
    const path = await saved('7.2', 'scsi');
    const byDump = await judge(path, await dumpTarget('10.0', configs.scsi));
    const said = await refusal('10.0', configs.scsi, path);
    expect(byDump.verdict).toBe(said === undefined ? 'loads' : 'refused');
    for (const stumbled of namesIn(said ?? '')) expect(about(byDump, 'refused')).toContain(stumbled);
  });

  test('a device type missing from the older QEMU', async () => {
    const path = await saved('10.0', 'newNic');
    const byDump = await judge(path, await dumpTarget('7.2', configs.base));
    expect(await refusal('7.2', configs.base, path)).toBeDefined();
    expect(about(byDump, 'refused')).toContain('igb');
    expect((await judge(path, await dumpTarget('10.0', configs.base))).verdict).not.toBe('refused');
  });

  test.each(qemuVersions)('versions raised and lowered in a file of QEMU %s', async (version) => {
    const original = readFileSync(await saved(version, 'base'));
    const target = await dumpTarget(version, configs.base);
    const { sections } = ((await fileTarget(await saved(version, 'base'))) as CheckTarget & { kind: 'file' }).facts;
    const moved = [
      'i8254',
      'mc146818rtc',
      ...(isFull ? ['fw_cfg', 'hpet', 'ioapic', 'ps2kbd', 'pckbd', 'fdc', 'dma'] : []),
    ];
    for (const name of moved) {
      const section = sections.find((each) => each.name === name);
      if (section === undefined) continue;
      for (const step of [1, -1]) {
        const bytes = Buffer.from(original);
        bytes.writeInt32BE(section.versionId + step, section.place.offset + 1 + 4 + 1 + name.length + 4);
        const path = join(folder, `${version}-moved`);
        writeFileSync(path, bytes);
        const said = await refusal(version, configs.base, path);
        const { verdict } = await judge(path, target);
        const explained = `${name} ${section.versionId + step}: ${said ?? 'loaded'}`;
        // A dump lacks conditions that depend on a version.
        if (verdict !== 'doubtful') expect(verdict, explained).toBe(said === undefined ? 'loads' : 'refused');
      }
    }
  });
});

describe.skipIf(lacksQemu('7.2', '10.0'))('requirements of a target', () => {
  test.each([
    { version: '10.0', capability: 'mapped-ram' },
    { version: '10.0', capability: 'x-ignore-shared' },
    ...(isFull ? [{ version: '7.2', capability: 'x-ignore-shared' } as const] : []),
  ] as const)('$version: the capability $capability', async ({ version, capability }) => {
    const shared = `memory-backend-file,id=shm,share=on,mem-path=${join(folder, 'shm')},size=16M`;
    const config: Config = { machine: 'none', properties: 'memory-backend=shm', args: ['-object', shared] };
    const path = join(folder, `${version}-${capability}`);
    await using qemu = await Qemu.start({ version, args: [...argsOf(config), '-S'] });
    await save(qemu, path, [capability]);
    const result = await judge(path, await dumpTarget(version, config));
    expect(about(result, 'needed')).toContain(capability);
    expect(await refusal(version, config, path)).toContain(capability);
    expect(await refusal(version, config, path, [capability])).toBeUndefined();
  });

  test('the capability compress, for a file of QEMU 7.2; QEMU 10.0 lacks it', async () => {
    const path = fixturePath('pc-compress-7.2.bin');
    const load = async (version: QemuVersion, type: string, capabilities: string[]) => {
      await using qemu = await startDestination({ version, machine: 'bare', type });
      return await loadInto(qemu, path, capabilities);
    };
    const needed = await judge(path, await dumpTarget('7.2', {}));
    expect(about(needed, 'needed')).toContain('compress');
    expect(await load('7.2', 'pc', [])).toContain('compressed page');
    expect(await load('7.2', 'pc', ['compress'])).toBeUndefined();
    expect(await load('10.0', 'pc-i440fx-7.2', [])).toBeDefined();
  });

  test('postcopy-ram, for a file that was sent with postcopy', async () => {
    const path = fixturePath('pc-postcopy-10.0.bin');
    const target = await dumpTarget('10.0', { machine: 'pc' });
    expect(about(await judge(path, target), 'needed')).toContain('postcopy-ram');
    const load = async (capabilities: string[]) => {
      await using qemu = await startDestination({ version: '10.0', machine: 'bare' });
      return await loadInto(qemu, path, capabilities);
    };
    expect(await load([])).toContain('RAM postcopy is disabled');
    expect(await load(['postcopy-ram'])).toBeUndefined();
  });
});
