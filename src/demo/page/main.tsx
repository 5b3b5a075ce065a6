/** Starts the page. */
import { render } from 'preact';
import { App } from './components/app.tsx';
import { acceptDrops } from './drops.ts';
import { followLinksInPlace } from './jump.ts';
import { reopen } from './reopen.ts';

render(<App />, document.getElementById('page') as HTMLElement);
acceptDrops();
followLinksInPlace();
addEventListener('popstate', () => void reopen());
void reopen();
// For measurements of the start-up time.
performance.mark('vmferry-ready');
