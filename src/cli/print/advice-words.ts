/** The recommendations of an estimate in words. */
import type { Estimate } from '../../tasks/estimate/estimate.ts';
import type { Recommendation } from '../../tasks/estimate/recommend.ts';
import { digits, duration, rate, share } from './estimate-figures.ts';
import { formatBytes, plural } from './format.ts';
import { wrap } from './wrap.ts';

/** A recommendation in words: what to do, and why. */
export function advise(each: Recommendation, { bandwidth, downtimeLimit }: Estimate['target']): string[] {
  switch (each.rule) {
    case 'detect-zero-pages':
      return item(
        'leave zero-page-detection on',
        `${share(each.zeroPages, each.pages)} of the pages are zero and need no data`,
      );
    case 'skip-zero-detection':
      return item(
        'zero-page-detection none',
        `only ${share(each.zeroPages, each.pages)} of the pages are zero: looking for them does not pay off`,
      );
    case 'compress':
      return item(
        `multifd, multifd-channels ${each.channels}, multifd-compression ${each.format}, level ${each.level}`,
        `ratio ${digits(each.ratio)}; pages are sent ${digits(each.gain)} times as fast at ${rate(bandwidth)}`,
      );
    case 'do-not-compress':
      return item(
        'no multifd-compression',
        `the best is ${each.format} level ${each.level}, ${plural(each.channels, 'channel')}: ${
          bandwidth < each.below || each.below === 0
            ? `pages do not get smaller, ratio ${each.ratio.toFixed(2)}`
            : `${digits(each.gain)} times as fast at ${rate(bandwidth)}; it pays off below ${rate(each.below)}`
        }`,
      );
    case 'xbzrle':
      return item(
        `xbzrle, xbzrle-cache-size ${formatBytes(each.cacheBytes)}, no multifd`,
        `changed pages take ${digits(each.meanBytes)} bytes, ${share(each.overflowShare, 1)} are sent whole; ${took(each.xbzrleMs)} instead of ${took(each.plainMs)}`,
      );
    case 'no-xbzrle':
      return item(
        'no xbzrle',
        `changed pages take ${digits(each.meanBytes)} bytes, ${share(each.overflowShare, 1)} are sent whole; ${took(each.xbzrleMs)} with it, ${took(each.plainMs)} without`,
      );
    case 'raise-downtime-limit':
      return item(
        `downtime-limit ${each.ms}`,
        `the lowest limit with which plain precopy converges; with ${downtimeLimit} it does not`,
      );
    case 'raise-bandwidth':
      return item(
        `or max-bandwidth ${rate(each.bandwidth)}`,
        `the lowest bandwidth at which plain precopy converges; at ${rate(bandwidth)} it does not`,
      );
    case 'auto-converge':
      return item(
        'or auto-converge',
        `converges in ${duration(each.totalMs)}, with the guest slowed by ${each.throttle} %`,
      );
    case 'postcopy':
      return item(
        'or postcopy-ram, no multifd',
        `${each.others ? 'plain precopy does not converge' : 'no kind of precopy converges'}; all pages arrive within ${duration(each.firstPassMs)} of the start`,
      );
    case 'xbzrle-if':
      return item(
        `or xbzrle, xbzrle-cache-size ${formatBytes(each.cacheBytes)}, no multifd`,
        `converges if changed pages take at most ${each.meanBytes} bytes on average; two saves of this VM would show that`,
      );
    case 'save-again':
      return item(
        `to be sure: two saves ${duration(each.intervalMs)} apart, or --dirty-rate`,
        'the changes could be sent in that time; these saves do not show how many of them the guest would make again meanwhile',
      );
  }
}

const took = (ms: number | undefined) => (ms === undefined ? 'no end' : duration(ms));

/** What to do, and why. */
function item(what: string, why: string): string[] {
  return [`  - ${what}`, ...wrap(why, 74).map((line) => `      ${line}`)];
}
