/** A form that asks for an offset. */
import { useState } from 'preact/hooks';
import { parseOffset } from '../parse-offset.ts';

interface Props {
  placeholder: string;
  button: string;
  onOffset(offset: number): void;
}

export function OffsetForm({ placeholder, button, onOffset }: Props) {
  const [text, setText] = useState('');
  const [isWrong, setWrong] = useState(false);
  const go = (event: Event) => {
    event.preventDefault();
    const offset = parseOffset(text);
    setWrong(offset === undefined);
    if (offset !== undefined) onOffset(offset);
  };
  return (
    <form onSubmit={go} class="offset-form">
      <label>
        <span>Offset</span>
        <input
          type="text"
          size={10}
          value={text}
          placeholder={placeholder}
          spellcheck={false}
          autocomplete="off"
          aria-invalid={isWrong}
          data-test="offset"
          onInput={({ currentTarget }) => setText(currentTarget.value)}
        />
      </label>
      <button type="submit">{button}</button>
      {isWrong ? (
        <span class="wrong" role="alert">
          Enter a decimal or 0x hex number, optionally with K, M, G or T.
        </span>
      ) : null}
    </form>
  );
}
