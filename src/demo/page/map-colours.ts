/**
 * What the values of a layer are called and how they are coloured. The colours are Okabe and Ito's, which people with any
 * colour vision can tell apart, and for amounts a scale by lightness; styles/colours.css has them.
 */
import { type Layer, pageDifferences, pageStates } from '../protocol.ts';

export interface PageClass {
  name: string;
  /** CSS variable with its colour. */
  colour: string;
  /** Shown as an empty frame, so that it is told from zero without any colour. */
  isHollow: boolean;
}

/** What a class is called on the page; the others by their names. */
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

/** Classes of the layers that have some, by number. */
export const layerClasses: Partial<Record<Layer, readonly PageClass[]>> = {
  state: classesOf(pageStates),
  difference: classesOf(pageDifferences),
};

/** Its colour as a style. */
export function swatch(pageClass: PageClass | undefined): { background?: string } {
  return pageClass === undefined || pageClass.isHollow ? {} : { background: `var(${pageClass.colour})` };
}

/** In which order the classes of a cell's pages are drawn, the most telling first. */
export const drawingOrder: Partial<Record<Layer, readonly number[]>> = {
  state: [2, 3, 4, 1, 5, 0],
  difference: [1, 3, 2, 0, 4, 5],
};

/** The steps of the scale for amounts: CSS variables `--scale-0` to `--scale-7`. */
export const scaleSteps = 8;

/** Value of a cell of which nothing is known. */
export const unknownValue = 255;

/** Step of an amount in a layer; `most`: the last pass. */
export function stepOf(layer: Layer, value: number, most: number): number {
  if (layer === 'entropy') return Math.min(scaleSteps - 1, Math.floor((value * scaleSteps) / 255));
  return most <= 1
    ? scaleSteps - 1
    : Math.min(scaleSteps - 1, Math.round(((value - 1) * (scaleSteps - 1)) / (most - 1)));
}

/** Reads the colours that are in force. */
export function readColours(element: Element): (variable: string) => string {
  const style = getComputedStyle(element);
  const known = new Map<string, string>();
  return (variable) => {
    const colour = known.get(variable) ?? style.getPropertyValue(variable).trim();
    known.set(variable, colour);
    return colour;
  };
}
