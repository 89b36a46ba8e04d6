import { resolve } from 'node:path'

/** The repository's root; `src` and `dist` lie at the same depth, so this holds for both. */
export const repoRoot = resolve(import.meta.dirname, '../../..')
