import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { digestSecret } from '@keygate/api-key'
import t from 'tap'
import { Door } from './door.ts'
import { many, statuses } from './flood.ts'
import { basicOf, call, openGatewayHouse, type Answer } from './house.ts'

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
const { stack } = house
const door = await Door.open(() => stack.keyService.url)
t.teardown(async () => {
  await house.stop()
  door.close()
})
const project = await house.createProject()
const path = `/app/api/v1/forms/${project.id}`

t.test('B2-10: five hundred requests at once for one record that is too old share one look-up, and all pass', async t => {
  // A busy machine is not a silent Redis: after a time-out a look-up of its own would be right.
  const gateway = await house.openGateway({ ...door.env, KEYGATE_REDIS_TIMEOUT_MS: '20000' })
  const { secret } = await project.createKey()
  const use = async (): Promise<Answer> => await call(gateway.url, { path, headers: basicOf(`${project.id}:${secret}`) })
  t.equal((await use()).status, 200)
  t.equal(door.asked.get(digestSecret(secret)), 1)
  const { now } = performance
  performance.now = () => now.call(performance) + 61_000 // a minute later, by the clock that a record's age is told by
  try {
    t.strictSame(statuses(await many(500, use, 500)), { 200: 500 })
  } finally {
    performance.now = now
  }
  t.equal(door.asked.get(digestSecret(secret)), 2)
})

t.test('B2-09: key-service is away and comes back: meanwhile it is tried about once a second, then asked once for each key that is in use', async t => {
  const gateway = await house.openGateway({ ...door.env, KEYGATE_VERIFY_TIMEOUT_MS: '2000', KEYGATE_REDIS_TIMEOUT_MS: '20000' })
  const keys = await many(1000, async () => await project.createKey(), 8)
  const useAll = async (): Promise<Answer[]> => await many(keys.length, async i => await call(gateway.url, { path, headers: basicOf(`${project.id}:${keys[i]?.secret ?? ''}`) }), 20)
  t.strictSame(statuses(await useAll()), { 200: keys.length })
  const { now } = performance
  performance.now = () => now.call(performance) + 61_000 // all records are too old
  try {
    await stack.keyService.kill()
    const [begun, before] = [Date.now(), door.total]
    for (let round = 0; round < 3; round++) t.strictSame(statuses(await useAll()), { 200: keys.length }, 'they go on, Redis confirms them')
    const [tried, seconds] = [door.total - before, Math.ceil((Date.now() - begun) / 1000)]
    t.ok(tried <= 20 + seconds + 1, `${tried} attempts in ${seconds} s, of them 20 at once before the first failed`)
    stack.keyService = await stack.startKeyService()
    door.asked.clear()
    for (const deadline = Date.now() + 60_000; door.asked.size < keys.length && Date.now() < deadline;) t.strictSame(statuses(await useAll()), { 200: keys.length })
    await useAll()
    t.equal(door.asked.size, keys.length)
    t.strictSame([...door.asked.values()].filter(times => times > 1), [], 'no key twice')
  } finally {
    performance.now = now
  }
})

t.test('GX-13: a million unknown secrets leave the records of a thousand known ones where they are, and nothing behind', async t => {
  const { stdout } = await promisify(execFile)(process.execPath, ['--expose-gc', fileURLToPath(new URL('flood-records.js', import.meta.url))])
  const { heapGrown, ...seen } = JSON.parse(stdout) as { heapGrown: number }
  // Each was asked for: there is no memory of what is unknown that could overflow.
  t.strictSame(seen, { learnt: 1000, unknown: 1_000_000, cached: 1000, found: 1000, asked: { known: 1000, unknown: 1_000_000 } })
  t.ok(heapGrown < 1_000_000, `${heapGrown} bytes of heap more`)
})
