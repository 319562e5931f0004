/** Time. Everything that waits or stamps goes through here, so that the simulator can turn the hands. */
export interface Timer {
  cancel(): void;
}

export interface Clock {
  /** Milliseconds since 1970; may jump. For stamps that people read, never for durations. */
  now(): number;
  /** Milliseconds of a clock that never goes back; fractional. For durations and deadlines. */
  monotonic(): number;
  /** Calls `fire` once after `delayMs`. Timers never keep a process alive. */
  setTimer(delayMs: number, fire: () => void): Timer;
  /** Resolves after `delayMs`; rejects with the signal's reason when aborted. */
  sleep(delayMs: number, signal?: AbortSignal): Promise<void>;
}
