/** Choices that are the same for the same seed, whatever was chosen elsewhere before. */
export interface Random {
  /** From 0 up to 1, without 1. */
  next: () => number
  /** Both ends included. */
  integer: (min: number, max: number) => number
  pick: <T>(list: readonly T[]) => T
  chance: (probability: number) => boolean
}

export function createRandom (seed: string): Random {
  let state = hash(seed)
  const next = (): number => { // mulberry32
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
  const integer = (min: number, max: number): number => min + Math.floor(next() * (max - min + 1))
  return {
    next,
    integer,
    pick: list => {
      if (list.length === 0) throw new Error('there is nothing to pick from')
      return list[integer(0, list.length - 1)] as typeof list[number]
    },
    chance: probability => next() < probability
  }
}

/** FNV-1a, 32 bits. */
function hash (text: string): number {
  let value = 0x811c9dc5
  for (const byte of Buffer.from(text)) value = Math.imul(value ^ byte, 0x01000193)
  return value
}
