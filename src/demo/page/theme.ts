/** Light or dark: as the system says, until the reader says otherwise. The choice is kept on this computer. */
import { signal } from '@preact/signals';

export type Theme = 'light' | 'dark';

const key = 'vmferry-theme';
const system = matchMedia('(prefers-color-scheme: dark)');

export const theme = signal<Theme>(stored() ?? fromSystem());

document.documentElement.dataset.theme = theme.value;
system.addEventListener('change', () => {
  if (stored() === undefined) show(fromSystem());
});

/** The other one, from now on. */
export function toggleTheme(): void {
  show(theme.value === 'dark' ? 'light' : 'dark');
  try {
    localStorage.setItem(key, theme.value);
  } catch {
    // Storage may be forbidden: then the choice lasts as long as the page.
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
