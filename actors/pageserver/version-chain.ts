/**
 * What a read of one page collects on its way back in time: versions, newest first, and at last what they stand on.
 * One chain is reused for page after page.
 */
const INITIAL_VERSIONS = 1024;

export class VersionChain {
  count = 0;
  /** Whether nothing older is needed: the versions stand on `image`, on a page of zeros, or the oldest makes the page anew. */
  complete = false;
  /** The buffer of a whole page under the versions. */
  image: Uint8Array | undefined;
  imageOffset = 0;
  imageLsn = 0;
  readonly buffers: Uint8Array[] = [];
  offsets = new Float64Array(INITIAL_VERSIONS);
  lengths = new Uint32Array(INITIAL_VERSIONS);
  startLsns = new Float64Array(INITIAL_VERSIONS);
  endLsns = new Float64Array(INITIAL_VERSIONS);

  reset(): void {
    this.count = 0;
    this.complete = false;
    this.image = undefined;
    this.imageLsn = 0;
  }

  /** Adds a WAL record, older than all that were added before. */
  push(buffer: Uint8Array, offset: number, length: number, startLsn: number, endLsn: number): void {
    const at = this.count++;
    if (at === this.offsets.length) this.#grow();
    this.buffers[at] = buffer;
    this.offsets[at] = offset;
    this.lengths[at] = length;
    this.startLsns[at] = startLsn;
    this.endLsns[at] = endLsn;
  }

  /** Ends the chain on a whole page. */
  endOnImage(buffer: Uint8Array, offset: number, lsn: number): void {
    this.image = buffer;
    this.imageOffset = offset;
    this.imageLsn = lsn;
    this.complete = true;
  }

  /** Ends the chain on a page of zeros, or on a record that needs no older version. */
  end(lsn: number): void {
    this.imageLsn = lsn;
    this.complete = true;
  }

  /** Lets go of the buffers, so that a long chain does not keep them alive. */
  release(): void {
    this.buffers.length = 0;
    this.reset();
  }

  #grow(): void {
    this.offsets = double(this.offsets, Float64Array);
    this.lengths = double(this.lengths, Uint32Array);
    this.startLsns = double(this.startLsns, Float64Array);
    this.endLsns = double(this.endLsns, Float64Array);
  }
}

function double<T extends Float64Array | Uint32Array>(from: T, make: new (length: number) => T): T {
  const to = new make(from.length * 2);
  to.set(from as never);
  return to;
}
