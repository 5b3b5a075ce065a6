/** The head and foot of the page: the name, the theme, and what happens to files. */
import { formatBytes, plural } from '../../../words/format.ts';
import icon from '../../icon.svg?url';
import { isRemotePage } from '../remote.ts';
import { means } from '../session.ts';
import { theme, toggleTheme } from '../theme.ts';

export function PageHead() {
  const other = theme.value === 'dark' ? 'light' : 'dark';
  return (
    <header class="page-head">
      <a class="skip" href="#main">
        Skip to the content
      </a>
      <img src={icon} alt="" width="22" height="22" />
      <h1>vmferry</h1>
      <p>look into a saved machine</p>
      <button type="button" class="quiet" onClick={toggleTheme}>
        {other === 'dark' ? 'Dark' : 'Light'} theme
      </button>
    </header>
  );
}

/** What the page can use in this browser. It explains why something is slow. */
function Means() {
  const found = means.value;
  if (found === undefined || 'failure' in found) return null;
  const { kernel, helpers, scratch, memoryLimit } = found;
  const shared = helpers === 0 ? 'no shared memory' : `${plural(helpers, 'helper worker')} with shared memory`;
  const storage = scratch === 'disk' ? 'private storage' : `memory, at most ${formatBytes(memoryLimit)}`;
  return (
    <p data-test="means">
      In this browser: {kernel === 'simd' ? 'kernels with SIMD' : 'kernels without SIMD'}, {shared}, temporary data in{' '}
      {storage}.
    </p>
  );
}

export function PageFoot() {
  return (
    <footer class="page-foot">
      {isRemotePage ? (
        <p>
          The page reads files in this browser and uploads nothing. It can fetch from other servers, so that it can open
          URLs there. <a href="./index.html">The other page</a> cannot.
        </p>
      ) : (
        <p>
          Nothing leaves this browser. The page reads files here, and can connect only to the server that it came from.
        </p>
      )}
      <p>
        vmferry reads QEMU migration files. It has the MIT license. <a href="./third-party.txt">Its components</a> have
        the MIT license or similar ones.
      </p>
      <Means />
    </footer>
  );
}
