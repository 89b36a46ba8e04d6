import { randomUUID } from 'node:crypto'
import { digestSecret, generateSecret, parseSecret } from '@keygate/api-key'
import { startTcpProxy } from '@keygate/local'
import t from 'tap'
import { OurSecrets } from '../src/admission/our-secrets.ts'
import { basicOf, call, openGatewayHouse, type Gateway } from './house.ts'

// Refusals are what this file is made of.
const house = await openGatewayHouse(upstream => `
apis:
  - name: forms
    prefix: /app/api/v1
    upstream: ${upstream}/app/api/v1
    openapi: ../upstream/forms.openapi.yaml
    project: { pathParameter: formId }
    scopes: tags
`, { KEYGATE_REFUSALS_LIMIT: '100000' })
const toKeyService = await startTcpProxy(Number(new URL(house.stack.keyService.url).port))
t.teardown(async () => {
  await house.stop()
  await toKeyService.stop()
})
const project = await house.createProject()
const path = `/app/api/v1/forms/${project.id}`
const importing = await house.openGateway({ KEYGATE_IMPORT_FORMS: 'uuid', KEYGATE_KEY_SERVICE_URL: `http://127.0.0.1:${toKeyService.port}` })
const plain = await house.openGateway({})

/** Presents a secret by header and by Basic; the statuses of both, and the look-ups that they cost. */
async function present ({ url, metric }: Gateway, secret: string): Promise<{ statuses: number[], lookUps: number }> {
  const before = await metric('gateway_verifications_total')
  const statuses = []
  for (const headers of [['x-api-key', secret], basicOf(`${project.id}:${secret}`)]) statuses.push((await call(url, { path, headers })).status)
  return { statuses, lookUps: await metric('gateway_verifications_total') - before }
}

t.test('which texts may be a secret: what we issued, and forms that are enabled', async t => {
  const uuid = randomUUID()
  const issued = generateSecret()
  const cases: Array<[string, boolean, boolean]> = [[issued, true, true], [uuid, false, true], [uuid.toUpperCase(), false, true], [`kg_${uuid}`, false, false], [issued.slice(0, -1), false, false], ['', false, false], [`${uuid} `, false, false]]
  for (const [text, without, withUuid] of cases) {
    t.equal(new OurSecrets({ prefix: 'kg', importForms: [] }).mayBe(text), without, text)
    t.equal(new OurSecrets({ prefix: 'kg', importForms: ['uuid'] }).mayBe(text), withUuid, text)
  }
})

t.test('A4-K1 every one-character change of an issued secret is refused, and none costs a look-up', async t => {
  const { secret } = await project.createKey()
  t.same((await present(importing, secret)).statuses, [200, 200])
  const before = await importing.metric('gateway_verifications_total')
  const characters = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_-'
  let tried = 0
  for (let at = 0; at < secret.length; at++) {
    const changed = [...characters].filter(character => character !== secret[at]).map(character => secret.slice(0, at) + character + secret.slice(at + 1))
    const statuses = await Promise.all(changed.map(async text => (await call(importing.url, { path, headers: ['x-api-key', text] })).status))
    tried += statuses.length
    t.same([...new Set(statuses)], [401], `position ${at}`)
  }
  t.equal(tried, secret.length * (characters.length - 1))
  t.equal(await importing.metric('gateway_verifications_total'), before)
})

t.test('imported secrets: where none is enabled no UUID reaches key-service', async t => {
  for (const secret of [randomUUID(), randomUUID().toUpperCase()]) t.same(await present(plain, secret), { statuses: [401, 401], lookUps: 0 })
})

t.test('imported secrets: with uuid enabled a UUID reaches key-service, another foreign text does not', async t => {
  const uuid = randomUUID()
  t.same(await present(importing, uuid), { statuses: [401, 401], lookUps: 2 })
  for (const secret of [uuid.replaceAll('-', ''), `{${uuid}}`, `${uuid}0`, uuid.slice(1), `g${uuid.slice(1)}`, 'sk_live_0123456789', `kg_${uuid}`]) {
    t.equal(parseSecret(secret, 'kg').kind === 'issued', false)
    t.same(await present(importing, secret), { statuses: [401, 401], lookUps: 0 }, secret)
  }
})

t.test('imported secrets: case counts, a UUID in upper case is asked for as another secret', async t => {
  let sent = ''
  // A trap that never closes: it sees what crosses the wire.
  toKeyService.swallow('up', chunk => { sent += chunk.toString(); return false }).catch(t.fail)
  const uuid = `a${randomUUID().slice(1)}`
  for (const secret of [uuid, uuid.toUpperCase()]) {
    t.same(await present(importing, secret), { statuses: [401, 401], lookUps: 2 })
    t.equal(sent.split(digestSecret(secret)).length - 1, 2)
    t.notOk(sent.includes(secret), 'as a digest, never as it is')
  }
})
