/**
 * Which branch a client means: words in the startup parameter `options`.
 *
 * `endpoint=NAME` names the branch and `project=NAME` the project, bare (as in `?options=endpoint%3Dmain`), after `-c`,
 * or as `--endpoint=NAME`. Those words are taken out, because Postgres would refuse them; the rest goes on unchanged.
 */
export interface Routing {
  endpoint: string | undefined;
  project: string | undefined;
  /** `options` without the words above; undefined when nothing is left. */
  options: string | undefined;
}

const ROUTING_WORD = /^(?:-c|--)?(endpoint|project)=(.*)$/s;

/** Splits `options` into routing and what is Postgres' own. When a word is given twice, the last counts. */
export function parseRouting(options: string | undefined): Routing {
  const routing: Routing = { endpoint: undefined, project: undefined, options: undefined };
  const words = (options ?? '').match(/(?:\\[\s\S]|[^\s\\])+|\\$/g) ?? [];
  const kept: string[] = [];
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!;
    const spread = word === '-c' && i + 1 < words.length;
    const match = ROUTING_WORD.exec(spread ? words[i + 1]! : word);
    if (match) {
      routing[match[1] as 'endpoint' | 'project'] = unescapeWord(match[2]!);
      if (spread) i++;
    } else {
      kept.push(word);
    }
  }
  if (kept.length > 0) routing.options = kept.join(' ');
  return routing;
}

/** In `options`, a backslash takes the next character literally. */
function unescapeWord(word: string): string {
  return word.replace(/\\([\s\S])/g, '$1');
}
