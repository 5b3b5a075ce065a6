/** Scrolls to the panel that a click was about. */

/** Scrolls to an element if less than a third of the window shows it. */
export function bringIntoSight(id: string): void {
  const element = document.getElementById(id);
  if (element === null) return;
  const { top, bottom } = element.getBoundingClientRect();
  const seen = Math.min(bottom, innerHeight) - Math.max(top, 0);
  if (seen < innerHeight / 3) element.scrollIntoView({ block: 'start' });
}

/** Scrolls to an element and moves the focus there, as a link to it does. */
export function goTo(id: string): void {
  const element = document.getElementById(id);
  if (element === null) return;
  element.scrollIntoView({ block: 'start' });
  if (!element.hasAttribute('tabindex')) element.setAttribute('tabindex', '-1');
  element.focus({ preventScroll: true });
}

/** Links within the page scroll, and leave the address alone: it can name the open file (recall.ts). */
export function followLinksInPlace(): void {
  document.addEventListener('click', (event) => {
    const { target, button, ctrlKey, metaKey, shiftKey, altKey } = event;
    if (button !== 0 || ctrlKey || metaKey || shiftKey || altKey || !(target instanceof Element)) return;
    const link = target.closest('a[href^="#"]');
    if (link === null) return;
    event.preventDefault();
    goTo((link.getAttribute('href') ?? '#').slice(1));
  });
}
