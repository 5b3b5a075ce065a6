/** The light or dark theme: that of the system until the user chooses one. The browser stores the choice. */
import { signal } from '@preact/signals';

type Theme = 'light' | 'dark';

const key = 'vmferry-theme';
const system = matchMedia('(prefers-color-scheme: dark)');

export const theme = signal<Theme>(stored() ?? fromSystem());

document.documentElement.dataset.theme = theme.value;
system.addEventListener('change', () => {
  if (stored() === undefined) show(fromSystem());
});

/** Switches to the other theme and stores the choice. */
export function toggleTheme(): void {
  show(theme.value === 'dark' ? 'light' : 'dark');
  try {
    localStorage.setItem(key, theme.value);
  } catch {
    // If storage is forbidden, the choice lasts until the page is closed.
  }
}

function show(next: Theme): void {
  document.documentElement.dataset.theme = next;
  theme.value = next;
}

function fromSystem(): Theme {
  return system.matches ? 'dark' : 'light';
}

function stored(): Theme | undefined {
  try {
    const value = localStorage.getItem(key);
    return value === 'light' || value === 'dark' ? value : undefined;
  } catch {
    return undefined;
  }
}
