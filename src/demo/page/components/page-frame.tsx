/** What is above and below: the name, the theme, and what is promised. */
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

/** What this browser gives: for who wonders why something is slow. */
function Means() {
  const found = means.value;
  if (found === undefined || 'failure' in found) return null;
  const { kernel, helpers, scratch, memoryLimit } = found;
  const shared = helpers === 0 ? 'no shared memory' : `${plural(helpers, 'helper')} on shared memory`;
  const aside = scratch === 'disk' ? 'private storage' : `memory, at most ${formatBytes(memoryLimit)}`;
  return (
    <p data-test="means">
      In this browser: {kernel === 'simd' ? 'kernels with SIMD' : 'kernels without SIMD'}, {shared}; set aside is in{' '}
      {aside}.
    </p>
  );
}

export function PageFoot() {
  return (
    <footer class="page-foot">
      {isRemotePage ? (
        <p>
          Files are read where they are, and nothing of them is sent. This page may fetch from other servers, so that it
          can open a URL; <a href="./index.html">the other one</a> may not.
        </p>
      ) : (
        <p>
          Nothing leaves this browser: files are read where they are, and this page may talk to no other server than the
          one that it came from.
        </p>
      )}
      <p>
        vmferry reads QEMU migration files. It is MIT licensed; so is{' '}
        <a href="./third-party.txt">what it is built with</a>, or similarly.
      </p>
      <Means />
    </footer>
  );
}
