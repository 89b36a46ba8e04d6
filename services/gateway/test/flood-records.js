// Run by look-ups-many.test.ts as a process of its own, from the build: under the test runner's hooks a million promises take minutes.
// Prints what came of it as JSON.
import { Records } from '../dist/admission/records.js'

const known = Array.from({ length: 1000 }, (_, i) => `known-${i}`)
const [guesses, atOnce] = [1_000_000, 1000]
const asked = { known: 0, unknown: 0 }
const records = new Records({
  keyService: {
    verify: async digest => {
      if (!digest.startsWith('known')) {
        asked.unknown++
        return { outcome: 'unknown', cursor: '1' }
      }
      asked.known++
      return { outcome: 'found', cursor: '1', record: {} }
    }
  },
  connection: { generation: 1 },
  recordTtlMs: 3_600_000,
  capacity: known.length
})
const find = async (digests, outcome) => {
  const found = await Promise.all(digests.map(async digest => await records.find(digest, records.moment())))
  return found.filter(result => result.outcome === outcome).length
}
const heap = () => { globalThis.gc(); return process.memoryUsage().heapUsed }

const learnt = await find(known, 'found')
const before = heap()
let unknown = 0
for (let first = 0; first < guesses; first += atOnce) unknown += await find(Array.from({ length: atOnce }, (_, i) => `guess-${first + i}`), 'unknown')
const cached = known.filter(digest => records.cached(digest) !== undefined).length
const found = await find(known, 'found')
console.log(JSON.stringify({ learnt, unknown, cached, found, asked, heapGrown: heap() - before }))
