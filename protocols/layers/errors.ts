/**
 * The error that all readers of layer files throw.
 */
import { PalimpsestError } from '../errors.ts';

/** The error of a layer whose bytes are not what was written; `what` names the damaged part. */
export function corruptLayer(file: string, what: string): PalimpsestError {
  return new PalimpsestError(
    'corrupt',
    `layer file ${file}: ${what} does not match its checksum`,
    'Remove the local file: it is fetched again from object storage. If that copy is damaged too, restore it.',
  );
}
