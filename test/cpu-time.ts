/** CPU time of this process in ms, so that a busy machine does not look slow; in a browser, the clock. */
export function cpuTime(): number {
  if (globalThis.process?.cpuUsage === undefined) return performance.now();
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}
