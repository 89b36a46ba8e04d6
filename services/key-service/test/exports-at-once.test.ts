import { setImmediate as turn } from 'node:timers/promises'
import { digestSecret } from '@keygate/api-key'
import t from 'tap'
import { buildApp } from '../src/app.ts'
import type { Database } from '../src/db/database.ts'
import { createTurns } from '../src/download/turns.ts'
import { openParts } from '../src/parts.ts'
import { configFor, startHouse, tokens } from './helper.ts'
import { waiting } from './lock-watch.ts'
import { rowAt, storeLog } from './log-rows.ts'
import { tablesOf } from './people-helper.ts'
import { book } from './usage-helper.ts'

t.test('turns: so many at once, the others in their order; what fails hands its turn on', async t => {
  const inTurn = createTurns(2)
  const begun: number[] = []
  const ends: Array<{ end: () => void, fail: (error: Error) => void }> = []
  const works = Array.from({ length: 6 }, (_, i) => inTurn(async () => {
    begun.push(i)
    await new Promise<void>((resolve, reject) => { ends[i] = { end: resolve, fail: reject } })
    return i
  }))
  const settled = Promise.allSettled(works)
  const expectBegun = async (expected: number[]): Promise<void> => {
    for (let i = 0; i < 10; i++) await turn()
    t.same(begun, expected)
  }
  await expectBegun([0, 1])
  ends[1]?.fail(new Error('no'))
  await expectBegun([0, 1, 2])
  ends[0]?.end()
  ends[2]?.end()
  await expectBegun([0, 1, 2, 3, 4])
  for (const i of [3, 4]) ends[i]?.end()
  await expectBegun([0, 1, 2, 3, 4, 5])
  ends[5]?.end()
  t.same((await settled).map(({ status }) => status), ['fulfilled', 'rejected', 'fulfilled', 'fulfilled', 'fulfilled', 'fulfilled'])
  t.equal(await inTurn(async () => 'again'), 'again')
})

t.test('many exports at once, on a server that is slow with them: a key is issued and found meanwhile, and every export is whole', async t => {
  const house = await startHouse(t)
  const config = configFor(t, await house.database(), house.redis.url)
  let searches = 0
  let database: Database | undefined
  const { app } = await buildApp(config, async log => {
    const parts = await openParts(config, log, () => {})
    database = parts.database
    return { ...parts, database: { ...parts.database, search: async work => { searches++; return await parts.database.search(work) } } }
  })
  t.teardown(async () => { await app.close() })
  await app.ready()
  const inject = async (method: 'GET' | 'POST', path: string, payload?: object) => await app.inject({ method, url: `/v1${path}`, headers: { authorization: `Bearer ${tokens.all}` }, ...payload !== undefined && { payload } })
  const projectId: string = (await inject('POST', '/projects', { name: 'P' })).json().id
  const { id: keyId }: { id: string } = (await inject('POST', `/projects/${projectId}/keys`, { name: 'K' })).json()
  if (database === undefined) throw new Error('there is no database')
  const at = Date.now()
  await book({ database } as Parameters<typeof book>[0], projectId, [{ keyId, at: new Date(at).toISOString(), admitted: 1 }])
  await storeLog(database, [rowAt(at, { projectId, keyId })])

  const session = tablesOf(t, config.databaseUrl)
  for (const [path, table] of [[`/projects/${projectId}/usage/export`, 'usage_hours'], [`/projects/${projectId}/keys/${keyId}/log/export`, 'request_log']] as const) {
    await session`BEGIN`
    await session`LOCK TABLE ${session(table)} IN ACCESS EXCLUSIVE MODE`
    const before = searches
    const exports = Array.from({ length: 40 }, async () => await inject('GET', path))
    while (await waiting(house.admin, config) < 2) await turn()
    // All connections would be held by now, and these wait for one until the exports end.
    const issued = await inject('POST', `/projects/${projectId}/keys`, { name: 'meanwhile' })
    t.equal(issued.statusCode, 201, path)
    t.match(await inject('POST', '/verifications', { digest: digestSecret(issued.json().secret) }), { statusCode: 200 })
    t.equal(await waiting(house.admin, config), 2, `after ${searches - before} searches`)
    await session`ROLLBACK`
    const answers = await Promise.all(exports)
    t.same(new Set(answers.map(({ statusCode }) => statusCode)), new Set([200]))
    t.equal(new Set(answers.map(({ body }) => body)).size, 1)
    t.equal(answers[0]?.body.trimEnd().split('\n').length, 1)
  }
})
