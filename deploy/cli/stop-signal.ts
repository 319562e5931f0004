/** How a command that runs until it is stopped learns of that. */

/** Two signals within this time are one Ctrl-C that reached the process by two ways. */
const SAME_SIGNAL_MS = 500;

/** The first signal stops in order; a second one, later, ends at once. */
export function stopSignal(): { signal: AbortSignal; received: Promise<'signal'> } {
  const controller = new AbortController();
  const received = new Promise<'signal'>((done) => {
    let firstMs: number | undefined;
    const handle = () => {
      if (firstMs === undefined) {
        firstMs = performance.now();
        controller.abort();
        done('signal');
      } else if (performance.now() - firstMs > SAME_SIGNAL_MS) {
        process.exit(130);
      }
    };
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, handle);
  });
  return { signal: controller.signal, received };
}
