/** Figures of an estimate as text. */
import { formatBytes } from './format.ts';

export const rate = (bytesPerSecond: number) => `${formatBytes(bytesPerSecond)}/s`;

/** At most three significant digits. */
export const digits = (value: number, most = 3) => String(Number(value.toPrecision(most)));

export function share(part: number, whole: number): string {
  const percent = whole === 0 ? 0 : (part / whole) * 100;
  if (percent > 0 && percent < 0.1) return '<0.1 %';
  return percent < 100 && percent > 99.9 ? '>99.9 %' : `${percent.toFixed(1)} %`;
}

export function duration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 120_000) return `${digits(ms / 1000)} s`;
  if (ms < 7_200_000) return `${digits(ms / 60_000)} min`;
  return `${digits(ms / 3_600_000)} h`;
}
