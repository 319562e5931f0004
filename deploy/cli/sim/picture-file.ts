/** Writes the picture of a run: runs it once more with a recorder, and puts the page together. */
import { readFileSync, writeFileSync } from 'node:fs';
import { pictureOf, renderPicture } from '../../../simulations/picture/page.ts';
import { type RunOptions, runSeed } from '../../../simulations/runs/run-seed.ts';
import { RunRecorder } from '../../../simulations/world/recorder.ts';

/** The page is one file that loads nothing else. */
export async function writePicture(path: string, run: RunOptions): Promise<void> {
  const recorder = new RunRecorder();
  const result = await runSeed({ ...run, recorder });
  const part = (name: string) =>
    readFileSync(new URL(`../../../simulations/picture/${name}`, import.meta.url), 'utf8');
  const parts = {
    html: part('page.html'),
    css: part('view.css'),
    scripts: [part('draw.js'), part('view.js')],
  };
  writeFileSync(path, renderPicture(parts, pictureOf(result, recorder)));
}
