import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { digestSecret } from '@keygate/api-key'
import { examples, type KeyRecord, type VerificationOutcome } from '@keygate/contracts'
import t from 'tap'
import { retirementHeaders } from '../src/admission/retirement-headers.ts'
import { returnedHeaders } from '../src/proxy/response-headers.ts'
import { basicOf, call, openGatewayHouse, type Answer, type Project } from './house.ts'

const own = { deprecation: '@1', sunset: 'Fri, 31 Dec 2049 23:59:59 GMT' }
/** An upstream that retires its API. */
const upstream = createServer((_request, response) => { response.writeHead(200, own).end() })
await new Promise<void>(resolve => { upstream.listen(0, '127.0.0.1', resolve) })
t.teardown(() => { upstream.close() })
const house = await openGatewayHouse((_upstream, dead) => 'apis:' + ['forms', 'dead'].map(name => `
  - name: ${name}
    prefix: /${name}
    upstream: ${name === 'dead' ? dead : `http://127.0.0.1:${(upstream.address() as AddressInfo).port}`}
    openapi: ../upstream/forms.openapi.yaml
    project: { pathParameter: formId }
    scopes: tags
    optInScopes: [files]`).join(''), { KEYGATE_REFUSALS_LIMIT: '100000' })
t.teardown(house.stop)
const [one, two] = house.gateways as [string, string]

const get = async (project: Project, secret: string, { gateway = one, path = '', api = 'forms' } = {}): Promise<Answer> =>
  await call(gateway, { path: `/${api}/forms/${project.id}${path}`, headers: basicOf(`${project.id}:${secret}`) })
const fields = ({ headers }: Answer): object => ({ deprecation: headers['deprecation'], sunset: headers['sunset'] })
const none = { deprecation: undefined, sunset: undefined }

/** The record as key-service tells it. */
async function recordOf (secret: string): Promise<KeyRecord> {
  const answer = await fetch(`${house.stack.keyService.url}/v1/verifications`, {
    method: 'POST',
    headers: { authorization: `Bearer ${house.stack.tokens.gateway}`, 'content-type': 'application/json' },
    body: JSON.stringify({ digest: digestSecret(secret) })
  })
  const outcome = await answer.json() as VerificationOutcome
  if (outcome.outcome === 'unknown') throw new Error('unknown')
  return outcome.record
}

t.test('the dates as RFC 9745 section 4 prints them', async t => {
  const [retiredAt, notAfter] = [Date.UTC(2023, 5, 30, 23, 59, 59), Date.UTC(2024, 5, 30, 23, 59, 59)]
  const wanted = { deprecation: '@1688169599', sunset: 'Sun, 30 Jun 2024 23:59:59 GMT' }
  const notAfterMs = null
  t.same(retirementHeaders({ notAfterMs, secretState: 'retiring', secretRetiredAtMs: retiredAt, secretNotAfterMs: notAfter }), wanted)
  t.same(retirementHeaders({ notAfterMs, secretState: 'retiring', secretRetiredAtMs: retiredAt + 999, secretNotAfterMs: notAfter + 999 }), wanted, 'rounded down')
  t.same(retirementHeaders({ notAfterMs, secretState: 'retiring', secretNotAfterMs: notAfter }), { sunset: wanted.sunset }, 'an older key-service does not tell when')
  t.same(retirementHeaders({ notAfterMs: notAfter, secretState: 'retiring', secretRetiredAtMs: retiredAt, secretNotAfterMs: notAfter + 60_000 }), wanted, 'the key ends before the grace')
  t.same(retirementHeaders({ notAfterMs, secretState: 'retiring', secretRetiredAtMs: null, secretNotAfterMs: null }), {})
  t.same(retirementHeaders({ notAfterMs, secretState: 'current', secretRetiredAtMs: null, secretNotAfterMs: null }), {})
})

t.test('the upstream\'s own fields give way only where the gateway tells the end of a secret', async t => {
  const raw = ['Deprecation', '@1', 'Sunset', 'x', 'Link', '<https://a.example>; rel="deprecation"']
  const names = (record: KeyRecord | null): string[] => returnedHeaders(raw, { principal: record, ownsCors: false }).pairs.filter((_, i) => i % 2 === 0).map(name => name.toLowerCase())
  t.same(names(examples.foundRetiring.record as KeyRecord), ['link'])
  t.same(names(examples.found.record as KeyRecord), ['deprecation', 'sunset', 'link'])
  t.same(names(null), ['deprecation', 'sunset', 'link'])
})

t.test('who still uses a replaced secret is told when it ends, on every answer that rests on its record', async t => {
  const project = await house.createProject()
  const { id, secret: old } = await project.createKey({ policies: [{ name: 'few', limit: 4, windowSeconds: 3600, algorithm: 'sliding', partition: 'key' }] })
  for (const gateway of [one, two]) t.same(fields(await get(project, old, { gateway })), own, 'before the rotation the upstream speaks for itself')
  const { secret } = await project.change(id, 'POST', '/rotate', { gracePeriodSeconds: 3600 })
  const record = await recordOf(old)
  const { secretRetiredAtMs, secretNotAfterMs } = record
  t.equal(record.secretState, 'retiring')
  const told = {
    deprecation: `@${Math.floor(secretRetiredAtMs as number / 1000)}`,
    sunset: new Date(secretNotAfterMs as number).toUTCString()
  }
  const answers = {
    'the upstream\'s answer': [200, await get(project, old)],
    'another gateway': [200, await get(project, old, { gateway: two })],
    'a limit': [429, await get(project, old)],
    'a missing scope': [403, await get(project, old, { path: '/files' })]
  } as const
  for (const [name, [status, answer]] of Object.entries(answers)) {
    t.equal(answer.status, status, name)
    t.same(fields(answer), told, name)
  }
  t.same(fields(await get(project, secret)), none, 'a limit of the new secret')
  t.same(fields(await get(project, secret, { path: '/files' })), none, 'a missing scope of the new secret')
})

t.test('who uses the new secret gets neither field of ours, and the upstream\'s as they are', async t => {
  const project = await house.createProject()
  const { id, secret: old } = await project.createKey()
  const { secret } = await project.change(id, 'POST', '/rotate', { gracePeriodSeconds: 3600 })
  for (const gateway of [one, two]) t.same(fields(await get(project, secret, { gateway })), own)
  const failed = await get(project, old, { api: 'dead' })
  t.equal(failed.status, 502)
  t.type(failed.headers['sunset'], 'string', 'an admitted request that the upstream did not answer')
  t.same(fields(await get(project, secret, { api: 'dead' })), none)
})

t.test('no 401 tells of a rotation', async t => {
  const [project, other] = [await house.createProject(), await house.createProject()]
  const { id, secret: old } = await project.createKey()
  await project.change(id, 'POST', '/rotate', { gracePeriodSeconds: 3600 })
  t.equal((await get(project, old)).status, 200)
  const elsewhere = await call(one, { path: `/forms/forms/${other.id}`, headers: ['x-api-key', old] })
  t.same([elsewhere.status, fields(elsewhere)], [401, none], 'another project\'s path')
  await project.change(id, 'POST', '/disable')
  const disabled = await get(project, old)
  t.same([disabled.status, fields(disabled)], [401, none])
})

t.test('without Redis it is told as well', async t => {
  const project = await house.createProject()
  const policies = [{ name: 'one', limit: 1, windowSeconds: 3600, algorithm: 'sliding', partition: 'key' }]
  const { id, secret: old } = await project.createKey({ policies })
  await project.change(id, 'POST', '/rotate', { gracePeriodSeconds: 3600 })
  await house.stack.redis?.kill()
  const sunset = new Date((await recordOf(old)).secretNotAfterMs as number).toUTCString()
  for (const [status, path] of [[403, '/files'], [200, ''], [429, '']] as const) {
    const answer = await get(project, old, { path })
    t.match([answer.status, answer.headers], [status, { ratelimit: undefined, sunset }])
  }
})
