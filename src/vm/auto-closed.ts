/**
 * Makes everything that must be closed work with `await using`. Platforms without that symbol can load the same
 * classes.
 */

/** `Symbol.asyncDispose`, or a substitute if the platform has none. */
export const asyncDispose: typeof Symbol.asyncDispose = Symbol.asyncDispose ?? Symbol.for('Symbol.asyncDispose');

/** Closes at the end of the scope of `await using`. Closing it earlier, or twice, does no harm. */
export interface AutoClosed {
  /** Closes it. */
  [asyncDispose](): Promise<void>;
}
