/** Draws that come out the same for the same seed. For names and dates alone: whatever opens something is drawn by `node:crypto`. */
export interface Random {
  /** A whole number from 0 to below `limit`. */
  below: (limit: number) => number
  /** True in about so many of a hundred cases. */
  percent: (share: number) => boolean
  pick: <T>(list: readonly T[]) => T
}

/** @param seed any whole number; neighbouring ones give unrelated draws. */
export function createRandom (seed: number): Random {
  // splitmix32: one word of state, so that each key can have a generator of its own.
  let state = seed | 0
  const next = (): number => {
    state = (state + 0x9e3779b9) | 0
    let word = Math.imul(state ^ (state >>> 16), 0x21f0aaad)
    word = Math.imul(word ^ (word >>> 15), 0x735a2d97)
    return (word ^ (word >>> 15)) >>> 0
  }
  const below = (limit: number): number => Math.floor(next() / 2 ** 32 * limit)
  return {
    below,
    percent: share => below(100) < share,
    pick: list => list[below(list.length)] as typeof list[number]
  }
}
