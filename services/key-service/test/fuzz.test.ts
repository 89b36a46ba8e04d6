import type { InjectOptions } from 'fastify'
import postgres from 'postgres'
import { test } from 'tap'
import { attack } from './fuzz/hostile-run.ts'
import { createJudge } from './fuzz/judge.ts'
import { readLog } from './fuzz/log-lines.ts'
import { operationsOf, refusalsOf, type Document } from './fuzz/operations.ts'
import { provoke } from './fuzz/refusals.ts'
import { fuzz, tell } from './fuzz/run.ts'
import { createWorld } from './fuzz/world.ts'
import { configFor, redisIsReady, startApp, startHouse, tokens } from './helper.ts'

const seed = process.env['KEYGATE_FUZZ_SEED'] ?? '1'
const requests = Number(process.env['KEYGATE_FUZZ_REQUESTS'] ?? 200)
/** Only operations whose ids match. */
const only = new RegExp(process.env['KEYGATE_FUZZ_ONLY'] ?? '')

test('requests made from the OpenAPI document', async t => {
  const house = await startHouse(t)
  const databaseUrl = await house.database()
  const config = configFor(t, databaseUrl, house.redis.url, { importForms: ['uuid'] })
  const testApp = await startApp(t, config)
  const { app: impatient } = await startApp(t, { ...config, requestsLimit: 1 })
  await redisIsReady(testApp)
  const { app, call } = testApp
  const sql = postgres(databaseUrl, { max: 1, onnotice: () => {} })
  t.teardown(async () => { await sql.end() })

  const document: Document = (await app.inject('/openapi.json')).json()
  const operations = operationsOf(document).filter(({ id }) => only.test(id))
  const world = await createWorld(app, call)
  const options = { app, token: tokens.all, world, judge: createJudge(document), seed, requests }

  for (const operation of operations) {
    await t.test(`${operation.id}: ${requests} requests, seed ${seed}`, async t => {
      const { accepted, faults, statuses, firstRefusal } = await fuzz(operation, options)
      t.same(faults.slice(0, 3), [], `${faults.length} answers do not fit`)
      t.ok(accepted * 3 >= requests, `${accepted} of ${requests} are accepted`, { firstRefusal })
      for (const status of refusalsOf(operation)) {
        await t.test(`${operation.id} ${status}`, async t => {
          const refusal = await provoke(operation, status, { app, impatient, world })
          if (refusal === undefined) {
            t.ok(statuses.has(status), `the fuzz produced ${status}; else say in test/fuzz/refusals.ts how to`)
            return
          }
          t.equal(refusal.answer.status, status, tell(operation, `${status} was wanted`, refusal.request, refusal.answer))
          t.same(options.judge(operation, refusal.answer), [])
        })
      }
    })
  }

  await t.test('GX-15 hostile texts in every field of every operation: no 5xx, no word of the database, no row elsewhere', async t => {
    for (const operation of operations) {
      const { requests, faults, foreignTables } = await attack(operation, sql, options)
      t.same({ faults: faults.slice(0, 3), foreignTables }, { faults: [], foreignTables: [] }, `${operation.id}: ${requests} requests`)
    }
  })

  await t.test('GX-29 one line of log per request, whatever stands in a name, a reason, a header or a path', async t => {
    const { app: loud } = await startApp(t, { ...config, logLevel: 'info' })
    const written = readLog(loud)
    const { body: { id: keyId } } = await call('POST', `/projects/${world.projectId}/keys`, { name: 'Logged' })
    const key = `/v1/projects/${world.projectId}/keys/${keyId}`
    const forged = 'a\n{"level":60,"msg":"forged"}\u001b[31m\u009b1m\r\n'
    const inHeader = 'a\t{"level":60,"msg":"forged"}\u009b31m'
    const inPath = encodeURIComponent(forged)
    const requests: InjectOptions[] = [
      { method: 'PATCH', url: key, payload: { name: forged } },
      { method: 'PATCH', url: key, payload: { name: forged.replace(/\p{Cc}/gu, ' ') } },
      { method: 'PATCH', url: key, payload: { description: forged, [forged]: forged } },
      { method: 'POST', url: `${key}/revoke`, payload: { reason: forged } },
      { method: 'POST', url: `${key}/revoke`, payload: { reason: 'a\n{"level":60,"msg":"forged"}' } },
      { method: 'GET', url: `${key}${inPath}` },
      { method: 'GET', url: `/v1/projects/${world.projectId}/keys?search=${inPath}&cursor=${inPath}` },
      { method: 'GET', url: `/${inPath}` },
      { method: 'GET', url: `/v1/projects/%zz${inPath}` }
    ]
    for (const request of requests) {
      await loud.inject({ ...request, headers: { authorization: `Bearer ${tokens.all}`, 'user-agent': inHeader, referer: inHeader, 'x-request-id': inHeader, 'x-forwarded-for': inHeader } })
    }
    t.equal(written.length, requests.length)
    for (const [index, line] of written.entries()) {
      t.match(line, /^\{[^\n]*\}\n$/, 'one line')
      t.notMatch(line.trimEnd(), /\p{Cc}/u, 'without a control character')
      t.match(JSON.parse(line), { level: 30, service: 'key-service', msg: 'request', req: { method: requests[index]?.method } })
    }
  })
})
