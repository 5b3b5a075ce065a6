export const POSTCOPY_ADVISE = 3;
export const POSTCOPY_RUN = 5;
export const PACKAGED = 7;

/** The payload lengths each command may have; undefined: any. */
export const commandLengths = new Map<number, number[] | undefined>([
  [1, [0]], // OPEN_RETURN_PATH
  [2, [4]], // PING
  [POSTCOPY_ADVISE, [0, 16]],
  [4, [0]], // POSTCOPY_LISTEN
  [POSTCOPY_RUN, [0]],
  [6, undefined], // POSTCOPY_RAM_DISCARD
  [PACKAGED, [4]],
  [8, [0]], // ENABLE_COLO
  [9, [0]], // POSTCOPY_RESUME
  [10, undefined], // RECV_BITMAP
  [11, [0]], // SWITCHOVER_START
]);
