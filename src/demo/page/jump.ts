/** Takes the reader to what a click was about, where it is not in sight already. */

export function bringIntoSight(id: string): void {
  const element = document.getElementById(id);
  if (element === null) return;
  const { top, bottom } = element.getBoundingClientRect();
  const seen = Math.min(bottom, innerHeight) - Math.max(top, 0);
  if (seen < innerHeight / 3) element.scrollIntoView({ block: 'start' });
}
