/**
 * A QEMU command line, as far as `resume --map` must understand it: the machine, its memory, and what it has on disks. Options
 * have one or two dashes. A value is the word after its option, in QEMU's form `word,key=value`, with `,,` for a comma.
 */

/** An option of a command line. */
export interface QemuOption {
  /** Without its dashes. */
  readonly name: string;
  /** Undefined: it takes none. */
  readonly value: string | undefined;
  /** Where it is in the arguments, and how many words it has. */
  readonly index: number;
  readonly words: number;
}

/** Options that take no value. Any other word after them is a disk image. */
const flags = new Set(
  (
    'S nographic snapshot daemonize nodefaults enable-kvm no-reboot no-shutdown no-user-config no-fd-bootchk no-acpi no-hpet ' +
    'full-screen usb only-migratable mem-prealloc singlestep one-insn-per-tb semihosting win2k-hack portrait h help version preconfig'
  ).split(' '),
);

/** The options of a command line, in order. A disk image without an option has the name `hda`. */
export function parseOptions(args: readonly string[]): QemuOption[] {
  const options: QemuOption[] = [];
  for (let index = 0; index < args.length; ) {
    const word = args[index] as string;
    const name = /^--?(?=[^-])(.*)$/.exec(word)?.[1];
    const takesValue = name !== undefined && !flags.has(name);
    const words = takesValue && index + 1 < args.length ? 2 : 1;
    const value = name === undefined ? word : words === 2 ? args[index + 1] : undefined;
    options.push({ name: name ?? 'hda', value, index, words });
    index += words;
  }
  return options;
}

/** The values of all options of these names. */
const valuesOf = (options: readonly QemuOption[], ...names: string[]): string[] =>
  options.flatMap(({ name, value }) => (names.includes(name) && value !== undefined ? [value] : []));

/** The keys of a value, in order, the last one of each name. `implied` is the key of a first word without `=`. */
export function parseKeys(value: string, implied = ''): Map<string, string> {
  if (value.trimStart().startsWith('{')) return jsonKeys(value);
  const keys = new Map<string, string>();
  for (const [index, part] of splitAtCommas(value).entries()) {
    const at = part.indexOf('=');
    if (at >= 0) keys.set(part.slice(0, at), part.slice(at + 1));
    else if (index === 0 && implied !== '') keys.set(implied, part);
    else if (part !== '') keys.set(part.replace(/^no/, ''), part.startsWith('no') ? 'off' : 'on');
  }
  return keys;
}

/** Splits at single commas. Of two commas one belongs to the part. */
const splitAtCommas = (value: string): string[] =>
  (value.match(/(?:^|,)(?:[^,]|,,)*/g) ?? []).map((part, index) =>
    part.slice(Math.min(index, 1)).replaceAll(',,', ','),
  );

/** The members of a JSON value, with dots for nested objects. Nothing if it is not JSON, which QEMU will say. */
function jsonKeys(value: string): Map<string, string> {
  const keys = new Map<string, string>();
  const visit = (object: object, prefix: string): void => {
    for (const [key, member] of Object.entries(object)) {
      if (typeof member === 'object' && member !== null) visit(member, `${prefix}${key}.`);
      else keys.set(prefix + key, member === true ? 'on' : member === false ? 'off' : String(member));
    }
  };
  try {
    visit(JSON.parse(value) as object, '');
  } catch {
    keys.clear();
  }
  return keys;
}

/** Writes keys as QEMU takes them. */
export const formatKeys = (keys: ReadonlyMap<string, string>): string =>
  [...keys].map(([key, value]) => `${key}=${value.replaceAll(',', ',,')}`).join();

/** A memory backend of a command line. */
export interface Backend {
  readonly id: string;
  readonly option: QemuOption;
  readonly isShared: boolean;
}

/** The memory backends of a command line. */
export function backendsIn(options: readonly QemuOption[]): Backend[] {
  return options.flatMap((option) => {
    if (option.name !== 'object' || option.value === undefined) return [];
    const keys = parseKeys(option.value, 'qom-type');
    const id = keys.get('id');
    if (id === undefined || keys.get('qom-type')?.startsWith('memory-backend-') !== true) return [];
    return [{ id, option, isShared: keys.get('share') === 'on' }];
  });
}

/** The machine type of a command line, if it has one. */
export function machineIn(options: readonly QemuOption[]): string | undefined {
  const types = valuesOf(options, 'M', 'machine').map((value) => parseKeys(value, 'type').get('type'));
  return types.filter((type) => type !== undefined).at(-1);
}

/** Whether a command line says itself which memory backends the machine has. */
export const placesBackends = (options: readonly QemuOption[]): boolean =>
  valuesOf(options, 'M', 'machine').some((value) => parseKeys(value, 'type').has('memory-backend')) ||
  valuesOf(options, 'numa').some((value) => parseKeys(value, 'type').has('memdev'));

/** Bytes of the RAM of a command line, without memory devices. Undefined if it does not say, or not in a form that QEMU takes. */
export function memoryIn(options: readonly QemuOption[]): number | undefined {
  const size = valuesOf(options, 'm')
    .map((value) => parseKeys(value, 'size').get('size'))
    .filter((text) => text !== undefined)
    .at(-1);
  const match = /^(\d+(?:\.\d+)?)([kmgtpe]?)(?:i?b)?$/i.exec(size ?? '');
  if (match === null) return undefined;
  const unit = (match[2] as string).toLowerCase() || 'm';
  return Math.round(Number(match[1]) * 1024 ** (1 + 'kmgtpe'.indexOf(unit)));
}

/** The arguments without some options. */
export function withoutOptions(args: readonly string[], gone: readonly QemuOption[]): string[] {
  const words = new Set(gone.flatMap(({ index, words: count }) => Array.from({ length: count }, (_, i) => index + i)));
  return args.filter((_, index) => !words.has(index));
}
