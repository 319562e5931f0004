/** What a process below this one may know from the environment. */
import { join } from 'node:path';

/** Credentials of object storage, as the SDK looks for them. */
const STORAGE_SECRETS = /^AWS_/;

/** For processes that run a tenant's code: everything but the storage's credentials. */
export function environmentWithoutStorage(): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !STORAGE_SECRETS.test(name)));
}

/**
 * The environment of a compute host. Its compiled code is kept apart from that of other processes, which run only a part
 * of the modules they share: what is kept holds the functions that had run. A native helper that is only faster with
 * large messages is not loaded.
 */
export function computeHostEnvironment(): NodeJS.ProcessEnv {
  const { NODE_COMPILE_CACHE: cache, ...others } = environmentWithoutStorage();
  return {
    ...others,
    MSGPACKR_NATIVE_ACCELERATION_DISABLED: 'true',
    ...(cache ? { NODE_COMPILE_CACHE: join(cache, 'compute-host') } : {}),
  };
}
