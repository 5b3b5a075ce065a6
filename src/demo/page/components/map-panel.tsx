/** The RAM map panel: the choice of block and layer, the legend, and the map. */
import { printable } from '../../../words/format.ts';
import type { Layer } from '../../protocol.ts';
import { layerClasses, scaleSteps, swatch } from '../map-colours.ts';
import { useMachine } from './machine-context.ts';
import { RamMap } from './ram-map.tsx';
import { TaskLine } from './task-line.tsx';

const layerNames: Record<Layer, string> = {
  state: 'page state',
  entropy: 'entropy',
  pass: 'pass',
  difference: 'difference',
};

export function MapPanel() {
  const { map } = useMachine();
  const view = map.view;
  return (
    <section class="panel" id="map" aria-labelledby="map-title">
      <div class="panel-head">
        <h3 id="map-title">RAM map</h3>
        {view === undefined ? null : <MapChoices />}
      </div>
      {view === undefined ? (
        <p class="empty">The file has no RAM to show.</p>
      ) : (
        <>
          <Legend />
          <TaskLine task={map.preparing} what="reading pages" retry={() => map.show(map.layer.value)} />
          <RamMap key={view.index} view={view} />
        </>
      )}
    </section>
  );
}

function MapChoices() {
  const { map, file } = useMachine();
  const layers: Layer[] = (map.view?.layers ?? []).filter((layer) => layer !== 'difference');
  if (map.base.value !== undefined) layers.push('difference');
  return (
    <div class="row">
      <label>
        <span>Block</span>
        <select
          value={map.block.value}
          data-test="map-block"
          onChange={({ currentTarget }) => map.select(Number(currentTarget.value), 0)}
        >
          {file.blocks.map(({ index, idstr }) => (
            <option key={index} value={index}>
              {printable(idstr)}
            </option>
          ))}
        </select>
      </label>
      <label>
        <span>Colour by</span>
        <select
          value={map.layer.value}
          data-test="map-layer"
          onChange={({ currentTarget }) => map.show(currentTarget.value as Layer)}
        >
          {layers.map((layer) => (
            <option key={layer} value={layer}>
              {layerNames[layer]}
            </option>
          ))}
        </select>
      </label>
    </div>
  );
}

function Legend() {
  const { map, file } = useMachine();
  const layer = map.layer.value;
  const classes = layerClasses[layer];
  const hidden = new Set(['discarded', 'compressed', 'unknown', 'not compared']);
  if (classes !== undefined) {
    return (
      <ul class="legend" aria-label="Legend">
        {classes
          .filter(({ name }) => !hidden.has(name) || isThere(name, file.inspection.ram.blocks[map.block.value]?.pages))
          .map((pageClass) => (
            <li key={pageClass.name}>
              <i class={pageClass.isHollow ? 'is-hollow' : ''} style={swatch(pageClass)} />
              {pageClass.name}
            </li>
          ))}
      </ul>
    );
  }
  const ends = layer === 'entropy' ? ['0', '8 bits per byte'] : ['pass 1', `pass ${file.inspection.ram.passes ?? ''}`];
  return (
    <p class="legend" role="img" aria-label={`Legend: from ${ends[0]} to ${ends[1]}`}>
      {ends[0]}
      <span class="scale">
        {Array.from({ length: scaleSteps }, (_, step) => (
          <i key={step} class="step" style={{ background: `var(--scale-${step})` }} />
        ))}
      </span>
      {ends[1]}
    </p>
  );
}

const isThere = (name: string, pages: { compressed: number } | undefined) =>
  name === 'compressed' && (pages?.compressed ?? 0) > 0;
