/**
 * Faults to be planted, one line of behaviour in each part of redo: the oracle must catch every one. `node planted-faults.ts NUMBER
 * BASE WAL RECOVERED` replays with that fault (-1: with none) and prints what was found as JSON. Two resource managers have none:
 * records of Standby and LogicalMessage change nothing that a recovery keeps.
 */
import { readFileSync } from 'node:fs';
import { registerHooks } from 'node:module';

const PROTOCOLS = new URL('../../protocols/postgres/', import.meta.url);

export interface Fault {
  what: string;
  /** Below protocols/postgres/. */
  file: string;
  /** Stands in the file exactly once. */
  find: string;
  replace: string;
  workload: 'heap' | 'indexes';
}

export const FAULTS: Fault[] = [
  {
    what: 'XLOG: an image loses its hole',
    file: 'redo/image.ts',
    find: 'offset + holeOffset + rest), holeOffset + holeLength)',
    replace: 'offset + holeOffset + rest), holeOffset)',
    workload: 'heap',
  },
  {
    what: 'Heap: a delete stores another xmax',
    file: 'redo/heap/heap.ts',
    find: 'else copyU32(page, tuple + T_XMAX, bytes, mainOffset);',
    replace: 'else copyU32(page, tuple + T_XMAX, bytes, mainOffset + 1);',
    workload: 'heap',
  },
  {
    what: 'Heap2: tuples of a multi-insert are aligned in the record instead of in the data',
    file: 'redo/heap/heap2.ts',
    find: 'at += (at - begin) & 1;',
    replace: 'at += at & 1;',
    workload: 'heap',
  },
  {
    what: 'Heap2: pruning leaves the last tuples where they lie',
    file: 'redo/compaction.ts',
    find: 'for (let piece = 0; piece < pieces; piece++) {',
    replace: 'for (let piece = 0; piece < pieces - 1; piece++) {',
    workload: 'heap',
  },
  {
    what: 'Heap2: where tuples lie in another order, line pointers stay as if they had moved in place',
    file: 'redo/compaction.ts',
    find: '    restoreOffsets(page, first, moved);\n',
    replace: '',
    workload: 'heap',
  },
  {
    what: 'Btree: deleted tuples leave a gap when the others are packed anew',
    file: 'redo/compaction.ts',
    find: '  movePiece(from, end, target);\n  both.copyWithin',
    replace: '  both.copyWithin',
    workload: 'heap',
  },
  {
    what: 'Heap2: a lock of an updated row forgets its kind',
    file: 'redo/heap/heap2.ts',
    find: 'setXmaxKind(page, tuple, bytes[mainOffset + 6]!, false, HOT_KEPT);',
    replace: 'setXmaxKind(page, tuple, 0, false, HOT_KEPT);',
    workload: 'heap',
  },
  {
    what: 'Visibility map: an insert leaves the bits',
    file: 'redo/visibility-map.ts',
    find: '(bytes[mainOffset + 2]! & 1) !== 0 ? clearOne(0, VM_VALID_BITS) : 0',
    replace: '0',
    workload: 'heap',
  },
  {
    what: 'Btree: a posting list that is split keeps its old left part',
    file: 'redo/btree/btree.ts',
    find: '  copyBytes(page, posting, swappedPosting, 0, indexTupleSize(swappedPosting, 0));\n',
    replace: '',
    workload: 'heap',
  },
  {
    what: 'Sequence: another magic number',
    file: 'redo/sequence.ts',
    find: 'const SEQUENCE_MAGIC = 0x1717;',
    replace: 'const SEQUENCE_MAGIC = 0x1718;',
    workload: 'heap',
  },
  {
    what: 'CLOG: subtransactions are forgotten',
    file: 'redo/clog.ts',
    find: '    setStatus(page, block, readU32(record.bytes, parsed.subxactOffset + 4 * i), status);\n',
    replace: '',
    workload: 'heap',
  },
  {
    what: 'MultiXact: members lose their status',
    file: 'redo/multixact.ts',
    find: '    page[group + member] = bytes[members + i * MULTIXACT_MEMBER_BYTES + 4]!;\n',
    replace: '',
    workload: 'heap',
  },
  {
    what: 'CommitTs: the time of the origin instead of the own',
    file: 'redo/commit-ts.ts',
    find: 'parsed.hasOrigin ? parsed.originTime : parsed.time',
    replace: 'parsed.originTime',
    workload: 'heap',
  },
  {
    what: 'Storage: a truncation keeps the heap',
    file: 'state/catalog-records.ts',
    find: '    if (flags & TRUNCATE_HEAP) sink.truncateRelation(spc, db, rel, FORK_MAIN, blocks);\n',
    replace: '',
    workload: 'heap',
  },
  {
    what: 'RelMap: a map loses its end',
    file: 'state/catalog-records.ts',
    find: 'bytes.slice(mainOffset + 12, mainOffset + 12 + length)',
    replace: 'bytes.slice(mainOffset + 12, mainOffset + 8 + length)',
    workload: 'heap',
  },
  {
    what: 'Database: a copied database is empty',
    file: 'state/catalog-records.ts',
    find: '    sink.copyDatabase(readU32(bytes, at + 8), db, readU32(bytes, at + 12), spc);\n',
    replace: '',
    workload: 'heap',
  },
  {
    what: 'Transaction: used ids are not counted',
    file: 'state/fold.ts',
    find: '(xid - this.#low) | 0) >= 0)',
    replace: '(xid - this.#low) | 0) > 2 ** 30)',
    workload: 'heap',
  },
  {
    what: 'ReplicationOrigin: progress is a byte too far',
    file: 'state/fold.ts',
    find: 'readU64(bytes, mainOffset), force, sink)',
    replace: 'readU64(bytes, mainOffset) + 1, force, sink)',
    workload: 'heap',
  },
  {
    what: 'Hash: an insert counts twice',
    file: 'redo/hash/hash.ts',
    find: 'if (id === 1) addToTupleCount(page, 1);',
    replace: 'if (id === 1) addToTupleCount(page, 2);',
    workload: 'indexes',
  },
  {
    what: 'Gin: the parent of a split posting page still leads to the left half',
    file: 'redo/gin/gin.ts',
    find: '  writeBlockId(page, DATA_START + (number - 1) * POSTING_ITEM_BYTES, rightChild);\n',
    replace: '',
    workload: 'indexes',
  },
  {
    what: 'Gist: one tuple for one is deleted and added instead of overwritten',
    file: 'redo/gist.ts',
    find: 'if (deleted === 1 && inserted === 1) {',
    replace: 'if (deleted === 1 && inserted === 2) {',
    workload: 'indexes',
  },
  {
    what: 'SPGist: a new leaf is not linked',
    file: 'redo/spgist/spgist.ts',
    find: '  if (head !== 0) setNextOffset(page, head, leaf);\n',
    replace: '',
    workload: 'indexes',
  },
  {
    what: 'BRIN: the range map points to the next tuple',
    file: 'redo/brin.ts',
    find: '  writeU16(page, at + 4, number);',
    replace: '  writeU16(page, at + 4, number + 1);',
    workload: 'indexes',
  },
  {
    what: 'Generic: a change lacks its last byte',
    file: 'redo/generic.ts',
    find: 'copyBytes(page, offset, bytes, at, length);',
    replace: 'copyBytes(page, offset, bytes, at, length - 1);',
    workload: 'indexes',
  },
];

/** What is printed. */
export interface FaultyReplay {
  found: string[];
}

/** The fault's file as it is, and with the fault. */
export function plant(fault: Fault): { url: string; source: string; isUnique: boolean } {
  const url = new URL(fault.file, PROTOCOLS);
  const sound = readFileSync(url, 'utf8');
  return {
    url: url.href,
    source: sound.replace(fault.find, () => fault.replace),
    isUnique: sound.split(fault.find).length === 2,
  };
}

if (import.meta.main) await main(process.argv.slice(2));

async function main([number, base, wal, recovered]: string[]): Promise<void> {
  const fault = FAULTS[Number(number)];
  if (fault !== undefined) {
    const { url, source } = plant(fault);
    registerHooks({
      load: (loaded, context, next) =>
        loaded === url ? { format: 'module-typescript', source, shortCircuit: true } : next(loaded, context),
    });
  }
  const { replayAndCompare } = await import('../../deploy/wal/replay.ts');
  const { compareWithRecovered } = await import('./compare-recovered.ts');
  const { findings, store, fold } = replayAndCompare(base!, wal!, { stopsAtFirst: true });
  const found = findings.length > 0 ? findings : compareWithRecovered(store, fold, recovered!).findings;
  console.log(JSON.stringify({ found: found.slice(0, 3) } satisfies FaultyReplay));
}
