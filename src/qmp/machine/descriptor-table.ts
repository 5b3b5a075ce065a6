/**
 * The descriptors that clients have passed to a machine. `getfd` gives one a name, which only its monitor knows and a
 * migration takes. `add-fd` puts one into a set, which any path `/dev/fdset/N` opens again and again.
 */
import type { Schema } from '../../schema/qapi/schema.ts';
import type { JsonObject } from '../json-value.ts';
import type { Handler } from '../server.ts';
import type { CommandOrigin } from '../session.ts';

/** What the platform does with descriptors. */
interface DescriptorSystem {
  /** Another descriptor of the same open file. */
  duplicate(fd: number): number;
  /** The flags that it was opened with. */
  flagsOf(fd: number): number;
  close(fd: number): void;
}

interface Member {
  readonly fd: number;
  readonly opaque: string | undefined;
  /** It goes as soon as the guest runs (before 9.1). */
  isRemoved: boolean;
}

export interface DescriptorTableOptions {
  readonly schema: Schema;
  /** Undefined: the platform receives no descriptors. */
  readonly system: DescriptorSystem | undefined;
  /** Whether the guest runs. */
  isRunning(): boolean;
}

/** Linux's flags. The file of a path is opened in one of three modes, with O_DIRECT or without. */
const [accessMode, direct] = [3, 0o40000];

const noDescriptor = 'No file descriptor supplied via SCM_RIGHTS';

export class DescriptorTable {
  readonly #options: DescriptorTableOptions;
  readonly #named = new Map<object, Map<string, number>>();
  readonly #sets = new Map<number, Member[]>();

  constructor(options: DescriptorTableOptions) {
    this.#options = options;
  }

  /** Takes what getfd has named. The taker closes it. Undefined: the monitor has nothing of that name. */
  takeNamed(monitor: object, name: string): number | undefined {
    const names = this.#named.get(monitor);
    const fd = names?.get(name);
    names?.delete(name);
    return fd;
  }

  /**
   * Opens a path of a set. Undefined: it is another path.
   * @param flags Linux's, as for `open`
   * @param words what QEMU before 9.1 says first if that fails
   * @throws Error with QEMU's text
   */
  open(path: string, flags: number, words: string): number | undefined {
    const [, text] = /^\/dev\/fdset\/(.*)$/s.exec(path) ?? [];
    if (text === undefined) return undefined;
    const { schema, system } = this.#options;
    const isOld = schema.isUntil('9.0');
    const failure = (old: string, code: string, recent: string) =>
      Object.assign(new Error(isOld ? `${words}: ${old}` : recent), { code });
    if (!/^\d{1,9}$/.test(text)) throw failure('Invalid argument', 'EINVAL', `Could not parse fdset ${path}`);
    const members = this.#sets.get(Number(text));
    if (members === undefined) throw failure('No such file or directory', 'ENOENT', `Failed to find fdset ${path}`);
    const wanted = flags & (accessMode | direct);
    const match = members.find(
      ({ fd }) => system !== undefined && (system.flagsOf(fd) & (accessMode | direct)) === wanted,
    );
    if (match !== undefined && system !== undefined) return system.duplicate(match.fd);
    const hex = flags.toString(16);
    throw failure('Permission denied', 'EACCES', `Failed to find file descriptor with matching flags=0x${hex}`);
  }

  /** The last client has gone. Before 9.1 the sets go, too. */
  desert(): void {
    if (!this.#options.schema.isUntil('9.0') || !this.#options.isRunning()) return;
    for (const members of this.#sets.values()) for (const { fd } of members) this.#close(fd);
    this.#sets.clear();
  }

  #close(fd: number): void {
    this.#options.system?.close(fd);
  }

  get handlers(): Record<string, Handler> {
    return {
      getfd: ({ fdname }, origin) => this.#name(origin, String(fdname)),
      closefd: ({ fdname }, { monitor }) => {
        const fd = this.takeNamed(monitor, String(fdname));
        if (fd === undefined) throw new Error(`File descriptor named '${String(fdname)}' not found`);
        this.#close(fd);
      },
      'add-fd': (given, origin) => this.#add(given, origin),
      'remove-fd': (given) => this.#remove(given),
      'query-fdsets': () => this.#query(),
    };
  }

  /** @throws Error with QEMU's text */
  #take({ takeDescriptor }: CommandOrigin): number {
    const fd = takeDescriptor();
    if (fd !== undefined) return fd;
    const isAble = this.#options.system !== undefined;
    throw new Error(
      isAble ? noDescriptor : `${noDescriptor} (to receive any, vmferry needs Linux and the package koffi)`,
    );
  }

  #name(origin: CommandOrigin, name: string): void {
    const fd = this.#take(origin);
    if (/^\d/.test(name)) {
      this.#close(fd);
      throw new Error("Parameter 'fdname' expects a name not starting with a digit");
    }
    const names = this.#named.get(origin.monitor) ?? new Map<string, number>();
    this.#named.set(origin.monitor, names);
    const former = names.get(name);
    if (former !== undefined) this.#close(former);
    names.set(name, fd);
  }

  #add({ 'fdset-id': given, opaque }: JsonObject, origin: CommandOrigin): object {
    const fd = this.#take(origin);
    const set = given === undefined ? this.#firstFree() : Number(given);
    if (set < 0) {
      this.#close(fd);
      throw new Error("Parameter 'fdset-id' expects a non-negative value");
    }
    const members = this.#sets.get(set) ?? [];
    this.#sets.set(set, members);
    members.push({ fd, opaque: opaque === undefined ? undefined : String(opaque), isRemoved: false });
    return { fd, 'fdset-id': set };
  }

  #firstFree(): number {
    let set = 0;
    while (this.#sets.has(set)) set++;
    return set;
  }

  /** @throws Error with QEMU's text */
  #remove({ 'fdset-id': id, fd }: JsonObject): void {
    const set = Number(id);
    const members = this.#sets.get(set);
    const gone = members?.filter((member) => fd === undefined || member.fd === Number(fd)) ?? [];
    if (members === undefined || (fd !== undefined && gone.length === 0)) {
      const what = fd === undefined ? `fdset-id:${id}` : `fdset-id:${id}, fd:${fd}`;
      throw new Error(`File descriptor named '${what}' not found`);
    }
    for (const member of gone) member.isRemoved = true;
    if (this.#options.schema.isUntil('9.0') && !this.#options.isRunning()) return;
    const kept = members.filter(({ isRemoved }) => !isRemoved);
    for (const member of members) if (member.isRemoved) this.#close(member.fd);
    if (kept.length === 0) this.#sets.delete(set);
    else this.#sets.set(set, kept);
  }

  #query(): object[] {
    return [...this.#sets]
      .sort(([a], [b]) => b - a)
      .map(([set, members]) => ({
        fds: members.map(({ fd, opaque }) => ({ fd, ...(opaque === undefined ? {} : { opaque }) })),
        'fdset-id': set,
      }));
  }
}
