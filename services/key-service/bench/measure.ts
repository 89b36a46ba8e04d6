/** Something that is measured: one call of the service. `turn` counts its calls. */
export interface Operation { name: string, call: (turn: number) => Promise<unknown> }

/** Milliseconds. */
export interface Figures { median: number, p95: number }

/** How often each is called. */
export interface Effort { warmUp: number, rounds: number, callsPerRound: number }
const usual: Effort = { warmUp: 20, rounds: 7, callsPerRound: 30 }

/** Operations take turns, one call at a time, so that a moment in which the machine is busy is not one operation's alone. */
export async function measure (operations: Operation[], onRound: (round: number, of: number) => void, { warmUp, rounds, callsPerRound }: Effort = usual): Promise<Map<string, Figures>> {
  const times = new Map(operations.map(({ name }) => [name, [] as number[]]))
  for (const { call } of operations) for (let turn = 0; turn < warmUp; turn++) await call(turn)
  for (let round = 0; round < rounds; round++) {
    onRound(round + 1, rounds)
    for (const { name, call } of operations) {
      for (let i = 0; i < callsPerRound; i++) {
        const begun = performance.now()
        await call(warmUp + round * callsPerRound + i)
        times.get(name)?.push(performance.now() - begun)
      }
    }
  }
  return new Map([...times].map(([name, found]) => [name, figuresOf(found)]))
}

function figuresOf (times: number[]): Figures {
  const sorted = [...times].sort((a, b) => a - b)
  const at = (share: number): number => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN
  return { median: at(0.5), p95: at(0.95) }
}
