/**
 * Footers of layer files: where the sections are, and what the layer is. See format.ts.
 */
import { PalimpsestError } from '../errors.ts';
import { crc32c } from '../postgres/crc32c.ts';
import { corruptLayer } from './errors.ts';
import {
  FOOTER_BYTES,
  FOOTER_MAGIC,
  FOOTER_SECTIONS_AT,
  KIND_STATE,
  LAYER_MAGIC,
  LAYER_VERSION,
  SECTION_COUNT,
  type SectionPlace,
  TRAILER_CRC_AT,
  TRAILER_LENGTH_AT,
  TRAILER_MAGIC_AT,
  TRAILER_VERSION_AT,
} from './format.ts';
import type { PageKey } from './key.ts';
import { decodeFooterVersion1, isFooterVersion1 } from './version-1.ts';

export interface LayerFooter {
  /** 1 or 2: how the sections are laid out. */
  version: number;
  kind: number;
  level: number;
  pgVersion: number;
  startLsn: number;
  endLsn: number;
  firstKey: PageKey;
  lastKey: PageKey;
  entries: number;
  sections: SectionPlace[];
}

/** Decodes the footer at the end of `bytes`, which are the last FOOTER_BYTES of a layer file, or all of a shorter one. */
export function decodeFooter(file: string, bytes: Uint8Array): LayerFooter {
  if (bytes.length < -TRAILER_MAGIC_AT) throw corruptLayer(file, 'the footer (file too short)');
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const end = bytes.length;
  if (view.getUint32(end + TRAILER_MAGIC_AT, true) !== FOOTER_MAGIC) {
    if (isFooterVersion1(bytes)) return decodeFooterVersion1(file, bytes);
    throw corruptLayer(file, 'the footer');
  }
  const version = view.getUint32(end + TRAILER_VERSION_AT, true);
  const length = view.getUint32(end + TRAILER_LENGTH_AT, true);
  if (version > LAYER_VERSION) {
    throw new PalimpsestError(
      'unsupported',
      `layer file ${file} has format version ${version}, newer than ${LAYER_VERSION}`,
      'It was written by a newer Palimpsest: use that one.',
    );
  }
  const isWhole =
    length === FOOTER_BYTES &&
    end >= length &&
    crc32c(bytes, end - length, end + TRAILER_CRC_AT) === view.getUint32(end + TRAILER_CRC_AT, true);
  if (!isWhole) throw corruptLayer(file, 'the footer');
  return decodeBody(file, new DataView(bytes.buffer, bytes.byteOffset + end - length, length));
}

function decodeBody(file: string, view: DataView): LayerFooter {
  if (view.getUint32(0, true) !== LAYER_MAGIC) throw corruptLayer(file, 'the footer');
  const kind = view.getUint32(8, true);
  if (kind < 1 || kind > KIND_STATE) {
    throw new PalimpsestError('unsupported', `layer file ${file} is of unknown kind ${kind}`);
  }
  const sections: SectionPlace[] = [];
  for (let i = 0; i < SECTION_COUNT; i++) {
    const at = FOOTER_SECTIONS_AT + i * 24;
    sections.push({
      offset: view.getFloat64(at, true),
      storedLength: view.getUint32(at + 8, true),
      rawLength: view.getUint32(at + 12, true),
      crc: view.getUint32(at + 16, true),
    });
  }
  return {
    version: view.getUint32(4, true),
    kind,
    level: view.getUint32(72, true),
    pgVersion: view.getUint32(12, true),
    startLsn: view.getFloat64(16, true),
    endLsn: view.getFloat64(24, true),
    firstKey: keyAt(view, 32),
    lastKey: keyAt(view, 52),
    entries: view.getFloat64(80, true),
    sections,
  };
}

function keyAt(view: DataView, at: number): PageKey {
  const part = (i: number) => view.getUint32(at + i * 4, true);
  return { spc: part(0), db: part(1), rel: part(2), fork: part(3), block: part(4) };
}
