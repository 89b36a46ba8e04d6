import { randomUUID } from 'node:crypto'
import { generateSecret } from '@keygate/api-key'
import t from 'tap'
import { basic, call, openHouse } from './house.ts'

const house = await openHouse({ gateways: 1, logLevel: 'warn', env: { gateway: { KEYGATE_REFUSALS_LIMIT: '100000' } } })
t.teardown(house.stop)

const guesses = 500
const median = (values: number[]): number => values.sort((a, b) => a - b)[Math.floor(values.length / 2)] as number

t.test('GX-01: a wrong secret of a project that exists and one of a project that does not are answered alike, by the same work', async t => {
  const { secret: right } = await house.createKey()
  const gateway = house.stack.gateways[0]?.url as string
  const guess = async (projectId: string) => {
    const begun = performance.now()
    const answer = await call(gateway, { path: `/app/api/v1/forms/${projectId}`, headers: [...basic(projectId, generateSecret('kg')), 'x-request-id', 'the-same'] })
    const { date: _date, ...headers } = answer.headers
    return { ms: performance.now() - begun, seen: JSON.stringify({ ...answer, headers }) }
  }
  t.equal((await house.use(0, right)).status, 200)

  // By turns, so that whatever else the machine does falls on both alike. Noise may hide a difference, so it is asked three times
  // before it counts: one that is there shows each time.
  const ratios: number[] = []
  while (ratios.length < 3) {
    const known: number[] = []
    const unknown: number[] = []
    const seen = new Set<string>()
    for (let i = 0; i < guesses; i++) {
      for (const [projectId, times] of [[house.projectId, known], [randomUUID(), unknown]] as const) {
        const { ms, seen: answer } = await guess(projectId)
        times.push(ms)
        seen.add(answer)
      }
    }
    t.equal(seen.size, 1, `${2 * guesses} refusals have one status, one body and the same headers: ${[...seen].slice(0, 2).join('\n')}`)
    ratios.push(median(known) / median(unknown))
    if (Math.abs((ratios.at(-1) as number) - 1) <= 0.05) break
  }
  t.comment(`median of a known project / median of an unknown one: ${ratios.map(ratio => ratio.toFixed(3)).join(', ')}`)
  t.ok(Math.abs((ratios.at(-1) as number) - 1) <= 0.05, 'and take the same time, within 5 %')
})
