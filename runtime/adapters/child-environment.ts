/** What a process below this one may know from the environment. */

/** Credentials of object storage, as the SDK looks for them. */
const STORAGE_SECRETS = /^AWS_/;

/** For processes that run a tenant's code: everything but the storage's credentials. */
export function environmentWithoutStorage(): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !STORAGE_SECRETS.test(name)));
}
