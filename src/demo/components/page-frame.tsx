/** What is above and below: the name, the theme, and what is promised. */
import icon from '../icon.svg?url';
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

export function PageFoot() {
  return (
    <footer class="page-foot">
      <p>
        Nothing leaves this browser: files are read where they are, and this page may talk to no other server than the
        one that it came from.
      </p>
      <p>
        vmferry reads QEMU migration files. It is MIT licensed; so is{' '}
        <a href="./third-party.txt">what it is built with</a>, or similarly.
      </p>
    </footer>
  );
}
