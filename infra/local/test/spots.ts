import type { Test } from 'tap'

/** What one kind of trouble came to over all its rounds. */
interface Spot { name: string, rounds: number, requests: number, stored: number, lost: number, faults: number }

/** Sums that only grow: of requests, those that were admitted. */
export interface Tally { requests: number, stored: number, lost: number }

export interface Spots {
  /** One kind of trouble, `rounds` times. A round of which a check fails, or that throws, is a fault. */
  run: (t: Test, name: string, rounds: number, round: (what: string) => Promise<void>) => Promise<void>
  /** A line for each kind. */
  report: () => string[]
}

/** Rounds between two words of progress. */
const wordEvery = 5

/** Plays troubles and keeps account of them by way of `tally`. */
export function createSpots (tally: () => Promise<Tally>): Spots {
  const spots: Spot[] = []
  return {
    run: async (t, name, rounds, round) => {
      const before = await tally()
      const begun = performance.now()
      const spot: Spot = { name, rounds: 0, requests: 0, stored: 0, lost: 0, faults: 0 }
      spots.push(spot)
      const account = async (): Promise<void> => {
        const now = await tally()
        Object.assign(spot, { requests: now.requests - before.requests, stored: now.stored - before.stored, lost: now.lost - before.lost })
      }
      for (let index = 0; index < rounds; index++) {
        const failed = t.counts.fail
        spot.rounds++
        try {
          await round(`round ${spot.rounds}`)
          await account()
        } catch (error) {
          spot.faults++
          t.comment(lineOf(spot))
          throw error // what follows would only find the ruins
        }
        if (t.counts.fail > failed) spot.faults++
        if (spot.rounds % wordEvery === 0 && spot.rounds < rounds) t.comment(`${lineOf(spot)}, ${spot.rounds} of ${rounds} in ${((performance.now() - begun) / 1000).toFixed(0)} s`)
      }
      t.comment(lineOf(spot))
    },
    report: () => spots.map(lineOf)
  }
}

function lineOf ({ name, rounds, requests, stored, lost, faults }: Spot): string {
  return `${name}: rounds ${rounds}, requests ${requests}, stored ${stored}, lost ${lost}, faults ${faults}`
}
