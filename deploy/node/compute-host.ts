/**
 * The process of one compute: serves its relation files, proposes its WAL, runs its Postgres.
 *
 *   unshare -m --fork --pid --kill-child -- node compute-host.ts JSON
 *
 * It prepares everything that does not depend on a database (warm), then waits on the bus for `start`. Its end takes
 * everything with it: it is the first process of its own namespaces, so Postgres and the mount end when it ends, however
 * that happens. It ends when its input closes (its parent is gone), when it was stopped, and when any part fails.
 *
 * Somebody may be waiting for it already. So this first file is small: it has the mounts made by other processes, on
 * another processor, while this one loads the program.
 */
import './host-preparation.ts';

await import('./compute-host-program.ts');
