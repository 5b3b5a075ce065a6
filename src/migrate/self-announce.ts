/**
 * How a guest that has arrived tells the network where it is now: QEMU's announcement for each network card, and
 * announce-self.
 *
 *     packet    1    2      3        4 ...
 *     gap        initial  +step    +step ...   at most `max` each
 *
 * The packet is a reverse ARP request of 60 bytes, broadcast from the card's own address, so that switches learn its port.
 */
import { type Clock, systemClock } from '../io/clock.ts';

/** QEMU's parameters. Times are in ms. */
export interface AnnounceParameters {
  'announce-initial': number;
  'announce-max': number;
  /** How many packets; 0: none. */
  'announce-rounds': number;
  'announce-step': number;
}

/** Bytes of a MAC address. */
const macBytes = 6;
/** The shortest Ethernet frame, without its check sum. */
const frameBytes = 60;
/** Ethernet, IPv4, 6 and 4 bytes of address, opcode 3. */
const request = [0x00, 0x01, 0x08, 0x00, macBytes, 4, 0x00, 0x03];
const rarp = [0x80, 0x35];
const noAddress = [0, 0, 0, 0];

/** The packet for a card. @throws RangeError for a MAC address that is not 6 bytes */
export function announcePacket(mac: Uint8Array): Uint8Array {
  if (mac.length !== macBytes) throw new RangeError(`expected a MAC address of ${macBytes} bytes, got ${mac.length}`);
  const packet = new Uint8Array(frameBytes);
  const broadcast = new Array<number>(macBytes).fill(0xff);
  packet.set([...broadcast, ...mac, ...rarp, ...request, ...mac, ...noAddress, ...mac, ...noAddress]);
  return packet;
}

/** The times in ms before each packet: 0 before the first. */
export function announceGaps(parameters: AnnounceParameters): number[] {
  const { 'announce-initial': initial, 'announce-max': max, 'announce-rounds': rounds } = parameters;
  return Array.from({ length: Math.max(0, rounds) }, (_, i) => {
    if (i === 0) return 0;
    const gap = initial + (i - 1) * parameters['announce-step'];
    return gap < 0 || gap > max ? max : gap;
  });
}

/** A network card of the VM. */
export interface AnnouncedCard {
  /** Its name: QEMU's `interfaces` names cards by it. */
  readonly name: string;
  /** 6 bytes. */
  readonly mac: Uint8Array;
  /** Sends a frame. */
  send(packet: Uint8Array): void;
}

/** What is announced. */
export interface Announcement {
  parameters: AnnounceParameters;
  /** Names of cards. Default: all. */
  interfaces?: readonly string[];
  /** Another announcement with the same id ends this one. Default: one that has none. */
  id?: string;
}

/** The announcements of a VM that are under way. */
export class SelfAnnouncer {
  readonly #cards: readonly AnnouncedCard[];
  readonly #clock: Clock;
  readonly #running = new Map<string | undefined, AbortController>();

  constructor(cards: readonly AnnouncedCard[], clock: Clock = systemClock) {
    this.#cards = cards;
    this.#clock = clock;
  }

  /** Begins an announcement. The first packets leave at once. */
  announce({ parameters, interfaces, id }: Announcement): void {
    this.#running.get(id)?.abort();
    const cards = this.#cards.filter(({ name }) => interfaces?.includes(name) ?? true);
    if (cards.length === 0) return;
    const ended = new AbortController();
    this.#running.set(id, ended);
    const done = () => {
      if (this.#running.get(id) === ended) this.#running.delete(id);
    };
    void this.#send(cards, announceGaps(parameters), ended.signal).then(done, done);
  }

  /** Whether an announcement is under way. */
  get isAnnouncing(): boolean {
    return this.#running.size > 0;
  }

  /** Ends all of them. */
  close(): void {
    for (const ended of this.#running.values()) ended.abort();
    this.#running.clear();
  }

  async #send(cards: readonly AnnouncedCard[], gaps: readonly number[], signal: AbortSignal): Promise<void> {
    for (const gap of gaps) {
      if (gap > 0) await this.#clock.sleep(gap, signal);
      for (const card of cards) card.send(announcePacket(card.mac));
    }
  }
}
