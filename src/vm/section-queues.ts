/**
 * Matches sections with entries elsewhere: in the VM description, or in another stream. Name and instance id identify a
 * section. Several sections may have the same identity; they match in order.
 */

/** What identifies a section. */
export interface SectionIdentity {
  /** idstr. */
  name: string;
  instanceId: number;
}

/** Entries by identity. Each can be taken once. Entries of the same identity are taken in order. */
export class SectionQueues<Entry extends SectionIdentity> {
  readonly #queues = new Map<string, { next: number; entries: Entry[] }>();

  constructor(entries: Iterable<Entry>) {
    for (const entry of entries) {
      const key = keyOf(entry);
      const queue = this.#queues.get(key);
      if (queue === undefined) this.#queues.set(key, { next: 0, entries: [entry] });
      else queue.entries.push(entry);
    }
  }

  /** Takes the next entry of this identity; undefined if none is left. */
  take(identity: SectionIdentity): Entry | undefined {
    const queue = this.#queues.get(keyOf(identity));
    return queue?.entries[queue.next++];
  }

  /** Takes the next entry of this identity. After the last one, it returns the last one again. */
  takeOrRepeat(identity: SectionIdentity): Entry | undefined {
    return this.take(identity) ?? this.#queues.get(keyOf(identity))?.entries.at(-1);
  }

  /** Whether there is, or was, an entry of this identity. */
  has(identity: SectionIdentity): boolean {
    return this.#queues.has(keyOf(identity));
  }

  /** Entries that were not taken. */
  rest(): Entry[] {
    return [...this.#queues.values()].flatMap(({ next, entries }) => entries.slice(next));
  }
}

const keyOf = ({ name, instanceId }: SectionIdentity) => `${instanceId} ${name}`;
