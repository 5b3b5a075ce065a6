export const POSTCOPY_ADVISE = 3;
export const POSTCOPY_LISTEN = 4;
export const POSTCOPY_RUN = 5;
export const POSTCOPY_RAM_DISCARD = 6;
export const RECV_BITMAP = 10;
export const PACKAGED = 7;

/** The valid payload lengths of each command; undefined: any. */
export const commandLengths = new Map<number, number[] | undefined>([
  [1, [0]], // OPEN_RETURN_PATH
  [2, [4]], // PING
  [POSTCOPY_ADVISE, [0, 16]],
  [POSTCOPY_LISTEN, [0]],
  [POSTCOPY_RUN, [0]],
  [POSTCOPY_RAM_DISCARD, undefined],
  [PACKAGED, [4]],
  [8, [0]], // ENABLE_COLO
  [9, [0]], // POSTCOPY_RESUME
  [RECV_BITMAP, undefined],
  [11, [0]], // SWITCHOVER_START
]);
