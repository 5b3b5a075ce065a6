/**
 * Names and colours of the values of a layer. Classes have the colours of Okabe and Ito, which people with any colour vision can
 * tell apart. Amounts have a scale from light to dark. The colours themselves are in styles/colours.css.
 */
import { type Layer, pageDifferences, pageStates } from '../protocol.ts';

export interface PageClass {
  name: string;
  /** CSS variable with the colour. */
  colour: string;
  /** Drawn as an empty frame, so that it differs from zero even without colour. */
  isHollow: boolean;
}

/** Names on the page, where they differ from the names of the classes. */
const wordFor: Record<string, string> = {
  xbzrle: 'XBZRLE',
  'became-zero': 'became zero',
  'became-data': 'became data',
};
const hollow = new Set(['absent', 'not-compared']);

const classesOf = (names: readonly string[]): PageClass[] =>
  names.map((name) => ({
    name: wordFor[name] ?? name.replace('-', ' '),
    colour: `--map-${name}`,
    isHollow: hollow.has(name),
  }));

/** The classes of a layer by number. Layers with amounts have none. */
export const layerClasses: Partial<Record<Layer, readonly PageClass[]>> = {
  state: classesOf(pageStates),
  difference: classesOf(pageDifferences),
};

/** The colour of a class as a style. */
export function swatch(pageClass: PageClass | undefined): { background?: string } {
  return pageClass === undefined || pageClass.isHollow ? {} : { background: `var(${pageClass.colour})` };
}

/** The classes from the most important to the least. */
export const drawingOrder: Partial<Record<Layer, readonly number[]>> = {
  state: [2, 3, 4, 1, 5, 0],
  difference: [1, 3, 2, 0, 4, 5],
};

/** The steps of the scale for amounts: CSS variables `--scale-0` to `--scale-7`. */
export const scaleSteps = 8;

/** Value of a cell whose pages have no known value. */
export const unknownValue = 255;

/** The step of an amount in a layer. `most` is the last pass. */
export function stepOf(layer: Layer, value: number, most: number): number {
  if (layer === 'entropy') return Math.min(scaleSteps - 1, Math.floor((value * scaleSteps) / 255));
  return most <= 1
    ? scaleSteps - 1
    : Math.min(scaleSteps - 1, Math.round(((value - 1) * (scaleSteps - 1)) / (most - 1)));
}

/** Reads the colours of the current theme. */
export function readColours(element: Element): (variable: string) => string {
  const style = getComputedStyle(element);
  const known = new Map<string, string>();
  return (variable) => {
    const colour = known.get(variable) ?? style.getPropertyValue(variable).trim();
    known.set(variable, colour);
    return colour;
  };
}
