/** CPU time of this process in ms, which does not depend on the load of the machine. In a browser, the clock. */
export function cpuTime(): number {
  if (globalThis.process?.cpuUsage === undefined) return performance.now();
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}
