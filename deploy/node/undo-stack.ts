/** What a start has done, to be undone when it stops or fails: newest first, each once, and one failure does not keep the rest from it. */
export class UndoStack {
  readonly #steps: { what: string; undo: () => Promise<void> | void }[] = [];
  #running: Promise<void> | undefined;

  add(what: string, undo: () => Promise<void> | void): void {
    this.#steps.push({ what, undo });
  }

  /** Undoes everything; when it is called again, that is what is waited for. */
  run(onFailure: (what: string, error: unknown) => void): Promise<void> {
    this.#running ??= this.#undoAll(onFailure);
    return this.#running;
  }

  async #undoAll(onFailure: (what: string, error: unknown) => void): Promise<void> {
    for (const { what, undo } of this.#steps.splice(0).reverse()) {
      try {
        await undo();
      } catch (error) {
        onFailure(what, error);
      }
    }
  }
}
