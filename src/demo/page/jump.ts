/** Scrolls to the panel that a click was about. */

/** Scrolls to an element if less than a third of the window shows it. */
export function bringIntoSight(id: string): void {
  const element = document.getElementById(id);
  if (element === null) return;
  const { top, bottom } = element.getBoundingClientRect();
  const seen = Math.min(bottom, innerHeight) - Math.max(top, 0);
  if (seen < innerHeight / 3) element.scrollIntoView({ block: 'start' });
}
