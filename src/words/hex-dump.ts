/**
 * Bytes as people read them: address, 16 bytes in two groups, ASCII, as `hexdump -C` prints it. Lines equal to the one
 * before are squashed to `*`; the last line is the address of the end.
 */
const lineBytes = 16;

const hexDigits = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'));
const asciiChars = Array.from({ length: 256 }, (_, byte) =>
  byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '.',
);

/** `de ad be ef`. */
export function hexBytes(bytes: Uint8Array): string {
  let text = '';
  for (let i = 0; i < bytes.length; i++) text += (i === 0 ? '' : ' ') + hexDigits[bytes[i] as number];
  return text;
}

/** Printable ASCII as it is, anything else as a dot. */
export function asciiBytes(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += asciiChars[byte];
  return text;
}

/**
 * A line of a dump: `00007c00  eb fe 00 …  |...|`. `width`: digits of the address. `perLine`: bytes that a whole line has, a
 * multiple of 8.
 */
export function hexLine(address: number | bigint, line: Uint8Array, width: number, perLine = lineBytes): string {
  let hex = '';
  let ascii = '';
  for (let i = 0; i < line.length; i++) {
    hex += `${i % 8 === 0 ? '  ' : ' '}${hexDigits[line[i] as number]}`;
    ascii += asciiChars[line[i] as number];
  }
  return `${hexAddress(address, width)}${hex.padEnd(perLine * 3 + perLine / 8)}  |${ascii}|`;
}

/** An address with leading zeros. */
export function hexAddress(address: number | bigint, width: number): string {
  return address.toString(16).padStart(width, '0');
}

/** Digits of the addresses up to `end`. */
export function addressDigits(end: number | bigint): number {
  return Math.max(8, end.toString(16).length);
}

/** Dumps bytes that come in pieces. */
export class HexDump {
  readonly #width: number;
  readonly #base: bigint;
  /** Address of the next line, counted from the base. */
  #address: number;
  /** Bytes of a line that is not full yet. */
  readonly #line = new Uint8Array(lineBytes);
  #filled = 0;
  readonly #previous = new Uint8Array(lineBytes);
  /** Whether a line came before, and whether it was squashed. */
  #state: 'first' | 'shown' | 'squashed' = 'first';

  /**
   * `end` is the address at which the bytes end. It decides the width of addresses. Both count from `base`: an address may have 64
   * bits.
   */
  constructor(address: number, end: number, base = 0n) {
    this.#address = address;
    this.#base = base;
    this.#width = addressDigits(base + BigInt(end));
  }

  /** The lines that these bytes complete. */
  bytes(bytes: Uint8Array): string {
    let text = '';
    for (let at = 0; at < bytes.length; ) {
      const count = Math.min(lineBytes - this.#filled, bytes.length - at);
      this.#line.set(bytes.subarray(at, at + count), this.#filled);
      this.#filled += count;
      at += count;
      if (this.#filled === lineBytes) text += this.#take();
    }
    return text;
  }

  /** The same for any number of zeros. After two lines the others are squashed without being formatted. */
  zeros(count: number): string {
    const zeros = new Uint8Array(3 * lineBytes);
    if (count <= zeros.length) return this.bytes(zeros.subarray(0, count));
    const text = this.bytes(zeros);
    const squashed = Math.floor((count - zeros.length) / lineBytes);
    this.#address += squashed * lineBytes;
    return text + this.bytes(zeros.subarray(0, count - zeros.length - squashed * lineBytes));
  }

  /** A line that says that bytes are missing. The bytes before it end their line early. */
  missing(count: number): string {
    const rest = this.#rest();
    const line = `${this.#at(this.#address)}  missing: ${count} bytes\n`;
    this.#address += count;
    this.#state = 'first';
    return rest + line;
  }

  /** The rest of the bytes, and the address of the end. */
  end(): string {
    return `${this.#rest()}${this.#at(this.#address)}\n`;
  }

  /** The line that is not full yet. */
  #rest(): string {
    const rest = this.#filled > 0 ? this.#format(this.#line.subarray(0, this.#filled)) : '';
    this.#address += this.#filled;
    this.#filled = 0;
    return rest;
  }

  #take(): string {
    const line = this.#line;
    this.#filled = 0;
    const isRepeated = this.#state !== 'first' && line.every((byte, i) => byte === this.#previous[i]);
    const text = !isRepeated ? this.#format(line) : this.#state === 'shown' ? '*\n' : '';
    this.#state = isRepeated ? 'squashed' : 'shown';
    this.#previous.set(line);
    this.#address += lineBytes;
    return text;
  }

  #format(line: Uint8Array): string {
    return `${hexLine(this.#based(this.#address), line, this.#width)}\n`;
  }

  #at(address: number): string {
    return hexAddress(this.#based(address), this.#width);
  }

  #based(address: number): number | bigint {
    return this.#base === 0n ? address : this.#base + BigInt(address);
  }
}
