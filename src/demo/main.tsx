/** The page begins here. */
import { render } from 'preact';
import { App } from './components/app.tsx';
import { acceptDrops } from './drops.ts';

render(<App />, document.getElementById('page') as HTMLElement);
acceptDrops();
// For who measures.
performance.mark('vmferry-ready');
