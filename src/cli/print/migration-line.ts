/** The text of the line on a terminal that shows how a live migration goes. What is estimated has a `~`. */
import type { MigrationProgress, RamProgress } from '../../migrate/progress.ts';
import { formatBytes, plural } from './format.ts';

/** What a command does with a guest. A destination can only estimate what its source has still to send. */
export type LiveVerb = 'receive' | 'send' | 'relay' | 'resume';

/** The line, in at most `columns` characters. The figures that matter most come first. */
export function migrationLine(verb: LiveVerb, { status, ram }: MigrationProgress, columns: number): string {
  const figures = ram === undefined ? [] : figuresOf(verb, ram);
  const outlook = ram === undefined || !status.endsWith('active') ? [] : outlookOf(verb, ram);
  return [`${verb}: ${status}`, ...figures, ...outlook].join(', ').slice(0, columns);
}

function figuresOf(verb: LiveVerb, ram: RamProgress): string[] {
  const { transferred, mbps, 'dirty-sync-count': pass, 'postcopy-requests': faults = 0 } = ram;
  return [
    // A page server has no passes.
    verb === 'resume' ? plural(faults, 'fault') : `pass ${pass}`,
    `${formatBytes(transferred)} ${verb === 'receive' ? 'received' : 'sent'}`,
    `${formatBytes((mbps * 1e6) / 8)}/s`,
  ];
}

/** What is still to come. */
function outlookOf(verb: LiveVerb, ram: RamProgress): string[] {
  const { remaining, total, 'dirty-sync-count': pass, 'dirty-pages-rate': dirtyPages = 0 } = ram;
  const about = verb === 'receive' && pass > 1 ? '~' : '';
  const dirtied = dirtyPages * ram['page-size'];
  return [
    ...(remaining > 0 ? [`${about}${formatBytes(remaining)} of ${formatBytes(total)} left`] : []),
    ...(dirtied > 0 ? [`${about}${formatBytes(dirtied)}/s dirtied`] : []),
    ...(remaining > 0 ? expectedEnd(ram, dirtied) : []),
  ];
}

/** When everything will have been sent, if pages go on leaving and being dirtied as fast as now. */
function expectedEnd(ram: RamProgress, dirtied: number): string[] {
  const rate = ram['pages-per-second'] * ram['page-size'];
  if (rate === 0) return [];
  if (rate <= dirtied) return ['dirtied as fast as sent: no end in sight'];
  return [`~${formatSeconds(Math.ceil(ram.remaining / (rate - dirtied)))} to go`];
}

function formatSeconds(seconds: number): string {
  if (seconds < 120) return `${seconds} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 120 ? `${minutes} min` : `${Math.round(minutes / 60)} h`;
}
