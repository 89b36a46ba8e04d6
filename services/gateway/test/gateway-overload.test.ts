import { readFileSync } from 'node:fs'
import type { Service } from '@keygate/local'
import t from 'tap'
import { flood, requestText, type Statuses } from './flood.ts'
import { call, openGatewayHouse } from './house.ts'

const house = await openGatewayHouse(upstream => `
apis:
  - name: forms
    prefix: /app/api/v1
    upstream: ${upstream}/app/api/v1
    openapi: ../upstream/forms.openapi.yaml
    project: { pathParameter: formId }
    scopes: tags
    policies: [{ name: wide, limit: 100000, window: 60s }]
`)
t.teardown(house.stop)
const project = await house.createProject()
const { secret } = await project.createKey()
const text = requestText({ path: `/app/api/v1/forms/${project.id}`, headers: ['X-API-Key', secret] })

/** Processor time that a process has used, seconds: what it can do in a second does not hang on what else this machine does. */
function cpuSeconds ({ pid }: Service): number {
  const [userTicks, systemTicks] = readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\) /s, '').split(' ').slice(11, 13).map(Number) as [number, number]
  return (userTicks + systemTicks) / 100
}

/** So many requests over so many connections; good answers per second of the gateway's processor time. */
async function load (gateway: Service, times: number, connections: number): Promise<{ goodput: number, seen: Statuses }> {
  const begun = cpuSeconds(gateway)
  const seen = await flood(gateway.url, times, () => text, { connections, inOneWrite: 1 })
  return { goodput: (seen['200'] ?? 0) / (cpuSeconds(gateway) - begun), seen }
}

t.test('B3-17: with five times as many clients as keep a gateway busy it serves as much as at its best, and says that it lives', { skip: process.platform !== 'linux' && 'reads /proc' }, async t => {
  const gateway = await house.startGateway({ KEYGATE_MAX_EVENT_LOOP_DELAY_MS: '1000', LOG_LEVEL: 'fatal' })
  await load(gateway, 2000, 8) // compiled and connected
  const rounds = { peak: [] as number[], over: [] as number[] }
  let asked = 0
  for (let round = 0; round < 3; round++) { // by turns, so that whatever else the machine does falls on both alike
    rounds.peak.push((await load(gateway, 1000, 8)).goodput)
    const over = { isDone: false }
    const loaded = load(gateway, 1000, 40).finally(() => { over.isDone = true })
    for (; !over.isDone; asked++) t.equal((await call(gateway.url, { path: '/livez' })).status, 200)
    const { goodput, seen } = await loaded
    t.strictSame(Object.keys(seen).filter(status => status !== '200' && status !== '503'), [], JSON.stringify(seen))
    rounds.over.push(goodput)
  }
  const median = (values: number[]): number => values.sort((a, b) => a - b)[1] as number
  const [peak, over] = [median(rounds.peak), median(rounds.over)]
  t.comment(`good answers per second of processor time: ${peak.toFixed(0)} at its best, ${over.toFixed(0)} under five times the load; /livez ${asked} times`)
  t.ok(asked > 0)
  t.ok(over >= 0.8 * peak, `${(over / peak).toFixed(2)} of the best`)
})
