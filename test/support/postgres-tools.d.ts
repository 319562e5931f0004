/** Types of postgres-tools.js, which is plain JavaScript because it also runs on older Node. */
export interface FoundTools {
  tools: Record<string, string>;
  env: Record<string, string>;
  missing: string[];
}
export function findPostgresTools(): FoundTools;
export function fetchPostgresTools(): string | undefined;
