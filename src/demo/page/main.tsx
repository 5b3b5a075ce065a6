/** Starts the page. */
import { render } from 'preact';
import { App } from './components/app.tsx';
import { acceptDrops } from './drops.ts';
import { wantedUrl } from './remote.ts';
import { openInput } from './session.ts';

render(<App />, document.getElementById('page') as HTMLElement);
acceptDrops();
const url = wantedUrl();
if (url !== undefined) void openInput({ url });
// For measurements of the start-up time.
performance.mark('vmferry-ready');
