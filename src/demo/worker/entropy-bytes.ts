/** The entropy of pages as bytes of the layer: 1 to 255 for 0 to 8 bits per byte. 0 stands for pages that are not known. */
import { entropyOf } from '../../tasks/estimate/page-entropy.ts';

export function entropyBytes(bytes: Uint8Array, pageSize: number): Uint8Array {
  const values = new Uint8Array(bytes.length / pageSize);
  for (let i = 0; i < values.length; i++)
    values[i] = 1 + Math.round((entropyOf(bytes, i * pageSize, pageSize) / 8) * 254);
  return values;
}
