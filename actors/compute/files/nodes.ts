/**
 * Files and directories of the mount, as the kernel names them: by node id.
 */
import { MODE_DIRECTORY, MODE_FILE } from '../../../protocols/fuse/constants.ts';
import type { Attributes } from '../../../protocols/fuse/replies.ts';
import type { FileContent } from './file-content.ts';

/** Owner of everything in the mount. */
export interface Owner {
  uid: number;
  gid: number;
}

interface NodeOptions {
  id: number;
  parent: DirectoryNode | undefined;
  name: string;
  permissions: number;
  mtimeMs: number;
}

abstract class Node {
  readonly id: number;
  parent: DirectoryNode | undefined;
  name: string;
  permissions: number;
  mtimeMs: number;
  /** References that the kernel holds; a removed node lives until they are gone. */
  lookups = 0;
  linked = true;

  constructor(options: NodeOptions) {
    this.id = options.id;
    this.parent = options.parent;
    this.name = options.name;
    this.permissions = options.permissions & 0o7777;
    this.mtimeMs = options.mtimeMs;
  }

  abstract attributes(owner: Owner): Attributes;
}

export class FileNode extends Node {
  readonly content: FileContent;

  constructor(options: NodeOptions, content: FileContent) {
    super(options);
    this.content = content;
  }

  attributes(owner: Owner): Attributes {
    return {
      nodeId: this.id,
      size: this.content.size,
      mode: MODE_FILE | this.permissions,
      links: this.linked ? 1 : 0,
      mtimeMs: this.mtimeMs,
      ...owner,
    };
  }
}

export class DirectoryNode extends Node {
  readonly children = new Map<string, TreeNode>();
  /** Oid of the database whose files are here; 0 for `global`; undefined for other directories. */
  readonly db: number | undefined;
  /** Whether storage still has to be asked for the files in it. */
  remote: boolean;
  /** Set while storage is being asked. */
  loading: Promise<void> | undefined;

  constructor(options: NodeOptions, db?: number, remote = false) {
    super(options);
    this.db = db;
    this.remote = remote;
  }

  attributes(owner: Owner): Attributes {
    return {
      nodeId: this.id,
      size: 4096,
      mode: MODE_DIRECTORY | this.permissions,
      links: 2,
      mtimeMs: this.mtimeMs,
      ...owner,
    };
  }
}

export type TreeNode = FileNode | DirectoryNode;
