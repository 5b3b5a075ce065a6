/**
 * Matches sections with what belongs to them in another place: the VM description, or another stream. A section is known by
 * its name and instance id. Several may have the same ones, and these match in their order.
 */

/** What a section is known by. */
export interface SectionIdentity {
  /** idstr. */
  name: string;
  instanceId: number;
}

/** Entries by identity. Each can be taken once; those of the same identity come in their order. */
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

  /** Takes the next entry of this identity; undefined if there are no more. */
  take(identity: SectionIdentity): Entry | undefined {
    const queue = this.#queues.get(keyOf(identity));
    return queue?.entries[queue.next++];
  }

  /** Takes the next entry of this identity; after the last one, that one again. */
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
