/** The options of `vmferry resume --map`. */
import type { InputOptions } from '../input.ts';

export interface MapOptions extends InputOptions {
  stream?: string;
  block?: string[];
  private?: boolean;
  clones?: number;
  overlay?: boolean;
  overlayDir?: string;
  json?: boolean;
}
