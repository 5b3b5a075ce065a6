/** Takes the reader to the bytes that a click was about, where they are not in sight already. */

export function bringIntoSight(id: string): void {
  const element = document.getElementById(id);
  if (element === null) return;
  const box = element.getBoundingClientRect();
  const isInSight = box.top < innerHeight * 0.6 && box.bottom > innerHeight * 0.3;
  if (!isInSight) element.scrollIntoView({ block: 'start' });
}
