/** Moments after a call at which something else may happen, up to a few turns of the event loop later. */
const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

export const laterMoments: readonly [string, () => Promise<void>][] = [
  ['one promise', async () => {}],
  ['one tick', () => new Promise((resolve) => process.nextTick(resolve))],
  ['one turn', turn],
  ['two turns', () => turn().then(turn)],
  ['three turns', () => turn().then(turn).then(turn)],
];
