import { digestSecret, generateSecret } from '@keygate/api-key'
import { test } from 'tap'
import { Compile } from 'typebox/compile'
import { VerificationOutcome } from '@keygate/contracts'
import { boundProject, configFor, redisIsReady, startApp, startHouse, tokens, type Answer, type House, type TestApp } from './helper.ts'

const unknownProject = '11111111-2222-4333-8444-555555555555'
const unknownKey = 'key_0000000000000000000000'
const unknownRole = 'role_0000000000000000000000'

test('key-service over HTTP', async t => {
  const house = await startHouse(t)
  const app = await startApp(t, configFor(t, await house.database(), house.redis.url))
  await redisIsReady(app)
  const { call } = app

  const newProject = async (body: object = { name: 'Forms' }) => (await call('POST', '/projects', body)).body.id as string
  const newKey = async (projectId: string, body: object = {}) => {
    const { body: key } = await call('POST', `/projects/${projectId}/keys`, { name: 'Key', scopes: ['submissions'], ...body })
    return { ...key, at: `/projects/${projectId}/keys/${key.id}` }
  }
  const verify = async (secret: string, projectId?: string) => {
    const { status, body } = await call('POST', '/verifications', { digest: digestSecret(secret), ...projectId !== undefined && { projectId } })
    if (status !== 200) throw new Error(`verification answered ${status}`)
    return body
  }

  await t.test('a project: create, read, list, edit, delete', async t => {
    const created = await call('POST', '/projects', { name: '  Grants  ' })
    t.match(created, { status: 201, body: { name: 'Grants', policies: null, version: 1, effective: 'everywhere', createdBy: 'all' } })
    const at = `/projects/${created.body.id}`
    t.equal(created.headers['location'], `/v1${at}`)
    t.same((await call('GET', at)).body, created.body)
    t.same((await call('GET', at.toUpperCase().replace('/PROJECTS', '/projects'))).body, created.body, 'a UUID in upper case is the same')
    const edited = await call('PATCH', at, { policies: [{ name: 'p', limit: 5, window: '60s' }] })
    t.match(edited, { status: 200, body: { name: 'Grants', version: 2, policies: [{ name: 'p', limit: 5, windowSeconds: 60, algorithm: 'sliding', partition: 'key' }] } })
    t.match((await call('PATCH', at, { name: 'Other', policies: null })).body, { name: 'Other', policies: null, version: 3 })
    t.match(await call('PATCH', at, {}), { status: 400 })
    t.match(await call('PATCH', at, { name: ' ' }), { status: 422, body: { errors: [{ pointer: '/name' }] } })
    t.match(await call('PATCH', at, { policies: [] }), { status: 422 })
    t.match(await call('PATCH', at, { policies: [{ name: 'p', limit: 100_001, window: '60s' }] }), { status: 422, body: { errors: [{ pointer: '/policies/0/limit', message: /fixed/ }] } })
    t.match(await call('POST', '/projects', { name: 'x', id: unknownProject }), { status: 400, body: { errors: [{ pointer: '/id' }] } })
    t.equal((await call('DELETE', at)).status, 204)
    for (const method of ['GET', 'DELETE']) t.match(await call(method, at), { status: 404, body: { code: 'project_not_found' } })
    t.match(await call('PATCH', at, { name: 'x' }), { status: 404 })
  })

  await t.test('lists come in pages, in any order', async t => {
    await newProject()
    const projectId = await newProject()
    const ids: string[] = []
    for (const name of ['cherry 100%', 'apple', 'banana_split']) ids.push((await newKey(projectId, { name, description: `a ${name} in a bowl` })).id)
    const walk = async (query: string) => {
      const names: string[] = []
      for (let cursor: string | null = ''; cursor !== null;) {
        const page: Answer = await call('GET', `/projects/${projectId}/keys?limit=2${query}${cursor === '' ? '' : `&cursor=${cursor}`}`)
        names.push(...page.body.data.map((key: { name: string }) => key.name))
        cursor = page.body.nextCursor
      }
      return names
    }
    t.same(await walk('&sort=name'), ['apple', 'banana_split', 'cherry 100%'])
    t.same(await walk('&sort=-name'), ['cherry 100%', 'banana_split', 'apple'])
    t.same(await walk('&sort=createdAt'), ['cherry 100%', 'apple', 'banana_split'])
    t.same(await walk(''), ['banana_split', 'apple', 'cherry 100%'])
    t.same(await walk('&search=BOWL&sort=name'), ['apple', 'banana_split', 'cherry 100%'], 'three characters or more: anywhere')
    t.same(await walk('&search=an'), [], 'fewer: the beginning of the name')
    t.same(await walk('&search=BA'), ['banana_split'])
    t.same(await walk('&search=00%25'), ['cherry 100%'], '% is a character')
    t.same(await walk('&search=a_s'), ['banana_split'], '_ is a character')
    t.same(await walk('&search=a%01b'), [])
    await call('POST', `/projects/${projectId}/keys/${ids[0]}/disable`)
    await call('POST', `/projects/${projectId}/keys/${ids[1]}/revoke`)
    t.same(await walk('&status=disabled'), ['cherry 100%'])
    t.same(await walk('&status=revoked'), ['apple'])
    t.same(await walk('&status=active'), ['banana_split'])
    t.same(await walk('&status=expired'), [])
    for (const [query, status] of [['limit=0', 422], ['limit=101', 422], ['limit=x', 400], ['sort=hint', 422], ['status=deleted', 422], ['search=a%00b', 422], ['scope=%00', 422], ['role=%00', 422], ['cursor=x', 400], ['filter=x', 400], [`cursor=${Buffer.from(JSON.stringify(['-createdAt', 'x', ids[0]])).toString('base64url')}`, 400]] as const) {
      t.equal((await call('GET', `/projects/${projectId}/keys?${query}`)).status, status, query)
    }
    const moments = ['2020-13-41T99:00:00.000Z', '2021-02-29T00:00:00.000Z', '2020-01-01T24:00:00.000Z', '0000-01-01T00:00:00.000Z', '2020-01-01T00:00:00Z']
    for (const moment of moments) {
      for (const [path, sort, id] of [[`/projects/${projectId}/keys`, '-createdAt', ids[0]], [`/projects/${projectId}/keys`, 'createdAt', ids[0]], ['/projects', '-createdAt', projectId]]) {
        const cursor = Buffer.from(JSON.stringify([sort, moment, id])).toString('base64url')
        t.match(await call('GET', `${path}?cursor=${cursor}${path === '/projects' ? '' : `&sort=${sort}`}`), { status: 400, body: { code: 'invalid_cursor' } }, `${path} after ${moment}, which never was`)
      }
    }
    for (const moment of ['0001-01-01T00:00:00.000Z', '9999-12-31T23:59:59.999Z', '2024-02-29T00:00:00.000Z']) {
      t.equal((await call('GET', `/projects/${projectId}/keys?cursor=${Buffer.from(JSON.stringify(['-createdAt', moment, ids[0]])).toString('base64url')}`)).status, 200, moment)
    }
    t.match(await call('GET', `/projects/${unknownProject}/keys`), { status: 404 })

    const first = await call('GET', '/projects?limit=1')
    const second = await call('GET', `/projects?limit=1&cursor=${first.body.nextCursor}`)
    t.equal(first.body.data[0].id, projectId, 'youngest first')
    t.not(second.body.data[0].id, projectId)
    t.match(await call('GET', '/projects?cursor=x'), { status: 400 })
  })

  await t.test('K1 a created key is found at once, with everything that admission depends on', async t => {
    const projectId = await newProject({ name: 'P', policies: [{ name: 'of project', limit: 9, windowSeconds: 10 }] })
    const answer = await call('POST', `/projects/${projectId}/keys`, {
      name: 'Accounting', scopes: ['submissions', 'exports', 'exports'], expiresAt: '2090-01-31', allowedHosts: ['192.0.2.9/24', '::ffff:10.0.0.1']
    })
    t.match(answer, {
      status: 201,
      headers: { 'cache-control': 'no-store' },
      body: {
        projectId,
        name: 'Accounting',
        description: null,
        status: 'active',
        allowedForAll: false,
        scopes: ['exports', 'submissions'],
        role: null,
        allowedHosts: ['192.0.2.0/24', '10.0.0.1'],
        expiresAt: '2090-01-31T23:59:59.999Z',
        policies: null,
        logging: { all: null, scopes: {} },
        sealed: false,
        rotation: null,
        version: 1,
        effective: 'everywhere',
        createdBy: 'all',
        lastUsedAt: null,
        endpoints: [{ api: 'forms', url: 'https://api.example.org/app/api/v1' }]
      }
    })
    const { secret, ...key } = answer.body
    t.match(secret, /^kg_\w{22}_\w{6}$/)
    t.equal(key.hint, `kg_…${secret.slice(-4)}`)
    t.same((await call('GET', `/projects/${projectId}/keys/${key.id}`)).body, { ...key, requests24h: Array(24).fill(0), sinceRevoked: null }, 'GET shows the same, without the secret, and what came of it')

    const found = await verify(secret)
    t.ok(Compile(VerificationOutcome).Check(found), 'the shape of the contract')
    t.match(found, {
      outcome: 'found',
      record: {
        projectId,
        keyId: key.id,
        keyVersion: 1,
        projectVersion: 1,
        status: 'active',
        scopes: ['exports', 'submissions'],
        allowedForAll: false,
        allowedHosts: ['192.0.2.0/24', '10.0.0.1'],
        notAfterMs: Date.parse('2090-01-31T23:59:59.999Z'),
        policies: { owner: 'project', list: [{ name: 'of project', limit: 9, windowSeconds: 10, algorithm: 'sliding', partition: 'key' }] },
        logging: { all: null, scopes: {} },
        secretRetiredAtMs: null,
        secretId: /^sec_/,
        secretState: 'current',
        secretNotAfterMs: null
      },
      cursor: /^\d+$/
    })
    t.equal((await verify(secret, projectId)).outcome, 'found')
    t.equal((await verify(secret, unknownProject)).outcome, 'unknown', 'a key of another project than the Basic username')
    t.equal((await verify(generateSecret('kg'))).outcome, 'unknown')

    await call('PATCH', `/projects/${projectId}/keys/${key.id}`, { policies: [{ name: 'own', limit: 1, windowSeconds: 1, algorithm: 'fixed' }] })
    t.match((await verify(secret)).record, { keyVersion: 2, policies: { owner: 'key', list: [{ name: 'own', algorithm: 'fixed' }] } }, 'the key\'s own list replaces the project\'s')
    t.match(await app.metrics(), /key_service_verifications_total\{outcome="found",service="key-service"\} \d/)
    t.match(await app.metrics(), /key_service_outbox_undelivered\{service="key-service"\} 0/)
  })

  await t.test('whenStoreIsDown: kept, told to gateways, and written only when it is not local', async t => {
    const list = [{ name: 'pay', limit: 3, windowSeconds: 60, whenStoreIsDown: 'closed' }, { name: 'free', limit: 9, windowSeconds: 1, whenStoreIsDown: 'open' }, { name: 'usual', limit: 9, windowSeconds: 60, whenStoreIsDown: 'local' }]
    const told = list.map(({ whenStoreIsDown, ...policy }) => ({ ...policy, algorithm: 'sliding', partition: 'key', ...whenStoreIsDown !== 'local' && { whenStoreIsDown } }))
    const projectId = await newProject({ name: 'P', policies: list })
    t.strictSame((await call('GET', `/projects/${projectId}`)).body.policies, told)
    const key = await newKey(projectId)
    const ofProject = await verify(key.secret)
    t.ok(Compile(VerificationOutcome).Check(ofProject), 'the shape of the contract')
    t.strictSame(ofProject.record.policies, { owner: 'project', list: told })

    const edited = await call('PATCH', key.at, { policies: list.slice(1) })
    t.strictSame(edited.body.policies, told.slice(1))
    t.strictSame((await call('GET', key.at)).body, { ...edited.body, requests24h: Array(24).fill(0), sinceRevoked: null })
    t.strictSame((await verify(key.secret)).record.policies, { owner: 'key', list: told.slice(1) })
    const again = await call('PATCH', key.at, { policies: edited.body.policies })
    t.strictSame(again.body, { ...edited.body, version: 3, effectiveAt: again.body.effectiveAt }, 'what was answered can be sent back')
  })

  await t.test('K2 rotate: the old secret is unknown at once; with a grace both are found', async t => {
    const key = await newKey(await newProject(), { expiresAt: '2090-01-01' })
    const second = await call('POST', `${key.at}/rotate`)
    t.match(second, { status: 200, headers: { 'cache-control': 'no-store' }, body: { id: key.id, version: 2, scopes: ['submissions'], effective: 'everywhere' } })
    t.equal((await verify(key.secret)).outcome, 'unknown')
    t.match((await verify(second.body.secret)).record, { keyVersion: 2, secretState: 'current', secretNotAfterMs: null })

    const third = await call('POST', `${key.at}/rotate`, { gracePeriodSeconds: 3600 })
    t.match((await verify(second.body.secret)).record, { secretState: 'retiring', secretNotAfterMs: Number })
    t.match((await verify(third.body.secret)).record, { secretState: 'current' })

    const fourth = await call('POST', `${key.at}/rotate`, { gracePeriodSeconds: 366 * 24 * 3600 })
    t.equal((await verify(second.body.secret)).outcome, 'unknown', 'rotating during a grace ends the oldest at once')
    t.equal((await verify(third.body.secret)).record.secretState, 'retiring')
    await call('PATCH', key.at, { expiresAt: new Date(Date.now() + 3_600_000).toISOString() })
    const fifth = await call('POST', `${key.at}/rotate`, { gracePeriodSeconds: 86_400 })
    const { record } = await verify(fourth.body.secret)
    t.equal(record.secretNotAfterMs, record.notAfterMs, 'a grace ends with the key')

    t.match(await call('POST', `${key.at}/rotate/finish`), { status: 200, body: { version: 7 } })
    t.equal((await verify(fourth.body.secret)).outcome, 'unknown')
    t.equal((await verify(fifth.body.secret)).outcome, 'found')
    t.match(await call('POST', `${key.at}/rotate/finish`), { status: 409, body: { code: 'no_rotation' } })
    t.match(await call('POST', `${key.at}/rotate`, { gracePeriodSeconds: -1 }), { status: 422 })
    t.match(await call('POST', `${key.at}/rotate`, { gracePeriodSeconds: '1' }), { status: 400 })
    t.match(await call('POST', `/projects/${key.projectId}/keys/${unknownKey}/rotate`), { status: 404 })
  })

  await t.test('K4 of 20 rotations at once one secret lives, and some caller got it', async t => {
    const key = await newKey(await newProject())
    const answers = await Promise.all(Array.from({ length: 20 }, async () => await call('POST', `${key.at}/rotate`)))
    t.same(answers.map(answer => answer.status), Array(20).fill(200))
    t.same(answers.map(answer => answer.body.version).sort((a, b) => a - b), Array.from({ length: 20 }, (_, i) => i + 2), 'each raised the version by one')
    const outcomes = await Promise.all([key.secret, ...answers.map(answer => answer.body.secret)].map(async secret => (await verify(secret)).outcome))
    t.equal(outcomes.filter(outcome => outcome === 'found').length, 1)
    const last = answers.find(answer => answer.body.version === 21) as Answer
    t.equal((await verify(last.body.secret)).outcome, 'found', 'it is the one of the last version')
  })

  await t.test('K6 delete, delete again; K7 an unknown key', async t => {
    const key = await newKey(await newProject(), { allowedHosts: ['192.0.2.1'], policies: [{ name: 'p', limit: 1, windowSeconds: 1 }] })
    t.equal((await call('DELETE', key.at)).status, 204)
    for (const [method, path, body] of [['DELETE', ''], ['GET', ''], ['PATCH', '', { name: 'x' }], ['POST', '/rotate'], ['PATCH', '/rotate', { gracePeriodSeconds: 60 }], ['POST', '/rotate/finish'], ['POST', '/disable'], ['POST', '/enable'], ['POST', '/revoke'], ['POST', '/reveal', { reason: 'setting up' }]] as const) {
      t.match(await call(method, key.at + path, body), { status: 404, body: { code: 'key_not_found' } }, `${method} ${path}`)
    }
    t.equal((await verify(key.secret)).outcome, 'unknown')
    t.same((await call('GET', `/projects/${key.projectId}/keys`)).body.data, [])
    for (const id of [unknownKey, 'key_1', 'x', '%00', '..%2f..', 'key_000000000000000000000é']) t.match(await call('GET', `/projects/${key.projectId}/keys/${id}`), { status: 404 }, id)
  })

  await t.test('K12 no answer but those of create and rotate holds a secret', async t => {
    const key = await newKey(await newProject())
    const texts = [await call('GET', key.at), await call('GET', `/projects/${key.projectId}/keys`), await call('PATCH', key.at, { name: 'x' }), await call('POST', `${key.at}/disable`)].map(answer => answer.text)
    t.notMatch(texts.join(), key.secret)
    t.notMatch(texts.join(), /"secret"|digest/)
  })

  await t.test('K14 disable and enable keep the secret, and may be repeated', async t => {
    const key = await newKey(await newProject(), { active: false })
    t.equal(key.status, 'disabled')
    t.equal((await verify(key.secret)).record.status, 'disabled', 'found: the gateway judges')
    for (const [action, status] of [['enable', 'active'], ['enable', 'active'], ['disable', 'disabled'], ['disable', 'disabled']]) {
      t.match(await call('POST', `${key.at}/${action}`), { status: 200, body: { status } })
      t.equal((await verify(key.secret)).record.status, status)
    }
    t.match(await call('POST', `${key.at}/disable`, { reason: 'x' }), { status: 400 })
  })

  await t.test('K15 a key that expires is found with its last moment, and shown as expired', async t => {
    const key = await newKey(await newProject(), { expiresAt: '2090-01-01T00:00:00.001Z' })
    t.equal((await verify(key.secret)).record.notAfterMs, Date.parse('2090-01-01T00:00:00.001Z'))
    await expire(house, app, key.id)
    t.equal((await call('GET', key.at)).body.status, 'expired')
    t.equal((await verify(key.secret)).record.status, 'active', 'time is judged by the script')
    t.same((await call('GET', `/projects/${key.projectId}/keys?status=expired`)).body.data.length, 1)
    t.same((await call('GET', `/projects/${key.projectId}/keys?status=active`)).body.data, [])
    const rotated = await call('POST', `${key.at}/rotate`, { gracePeriodSeconds: 60 })
    t.equal((await verify(key.secret)).outcome, 'unknown', 'an expired key has no grace to give')
    t.equal((await verify(rotated.body.secret)).outcome, 'found')
    t.match(await call('PATCH', key.at, { expiresAt: null }), { body: { status: 'active', expiresAt: null } })
  })

  await t.test('revoke is final', async t => {
    const key = await newKey(await newProject())
    t.match(await call('POST', `${key.at}/revoke`, { reason: 'x'.repeat(401) }), { status: 422 })
    t.match(await call('POST', `${key.at}/revoke`, { reason: 'leaked' }), { status: 200, body: { status: 'revoked', version: 2 } })
    t.equal((await verify(key.secret)).record.status, 'revoked')
    for (const [method, path, body] of [['PATCH', '', { name: 'x' }], ['POST', '/rotate'], ['PATCH', '/rotate', { gracePeriodSeconds: 60 }], ['POST', '/rotate/finish'], ['POST', '/disable'], ['POST', '/enable'], ['POST', '/revoke'], ['POST', '/reveal', { reason: 'setting up' }]] as const) {
      t.match(await call(method, key.at + path, body), { status: 409, body: { code: 'key_revoked' } }, `${method} ${path}`)
    }
    t.match((await call('GET', key.at)).body, { status: 'revoked', version: 2 }, 'a refused action raises nothing')
    t.equal((await call('DELETE', key.at)).status, 204)
  })

  await t.test('K24 an edit changes what it names, and the secret stays', async t => {
    const key = await newKey(await newProject(), { description: 'old', allowedHosts: ['192.0.2.1'], expiresAt: '2090-01-01' })
    t.match(await call('PATCH', key.at, { description: 'new' }), { status: 200, body: { description: 'new', name: 'Key', scopes: ['submissions'], allowedHosts: ['192.0.2.1'], expiresAt: '2090-01-01T23:59:59.999Z', version: 2 } })
    t.match((await verify(key.secret)).record, { keyVersion: 2 })
    t.match((await call('PATCH', key.at, { allowedForAll: true })).body, { allowedForAll: true, scopes: ['submissions'] }, 'the stored scopes are kept')
    t.match((await call('PATCH', key.at, { allowedForAll: false, scopes: [] })).body, { allowedForAll: false, scopes: [] })
    t.match((await call('PATCH', key.at, { description: null, allowedHosts: null, expiresAt: null, policies: null })).body, { description: null, allowedHosts: null, expiresAt: null, policies: null })
    const merge = await app.app.inject({ method: 'PATCH', url: `/v1${key.at}`, headers: { authorization: `Bearer ${tokens.all}`, 'content-type': 'application/merge-patch+json', 'if-match': '*' }, payload: '{"name":"merged"}' })
    t.match(merge.json(), { name: 'merged' })
  })

  await t.test('K16, K18 and the rest of what cannot be accepted: 422 with the field', async t => {
    const projectId = await newProject()
    const key = await newKey(projectId)
    const cases: Array<[object, string]> = [
      [{ expiresAt: '2020-01-01' }, '/expiresAt'], [{ expiresAt: 'not a date' }, '/expiresAt'], [{ expiresAt: '10000-01-01' }, '/expiresAt'], [{ expiresAt: '2027-02-30' }, '/expiresAt'],
      [{ allowedHosts: ['*.x.org'] }, '/allowedHosts/0'], [{ allowedHosts: ['192.0.2.1', '1.2.3.4:80'] }, '/allowedHosts/1'], [{ allowedHosts: ['300.1.1.1'] }, '/allowedHosts/0'], [{ allowedHosts: [] }, '/allowedHosts'],
      [{ scopes: ['submissions', 'nonsense'] }, '/scopes/1'], [{ scopes: ['Submissions'] }, '/scopes/0'],
      [{ name: '' }, '/name'], [{ name: 'x'.repeat(101) }, '/name'], [{ name: 'a\u0000b' }, '/name'], [{ description: 'x'.repeat(401) }, '/description'], [{ description: '\u0000' }, '/description'],
      [{ policies: [] }, '/policies'], [{ policies: [{ name: 'p', limit: 0, windowSeconds: 1 }] }, '/policies/0/limit'], [{ policies: [{ name: 'p', limit: 1 }] }, '/policies/0/window'],
      [{ policies: [{ name: 'p\u0000', limit: 1, windowSeconds: 1 }] }, '/policies/0/name'], [{ policies: [{ name: 'p', limit: 1, windowSeconds: 1, algorithm: 'leaky' }] }, '/policies/0/algorithm'],
      [{ policies: [{ name: 'p', limit: 1, windowSeconds: 1, whenStoreIsDown: 'refuse' }] }, '/policies/0/whenStoreIsDown']
    ]
    for (const [body, pointer] of cases) {
      for (const [method, path] of [['POST', `/projects/${projectId}/keys`], ['PATCH', key.at]] as const) {
        t.match(await call(method, path, { ...method === 'POST' && { name: 'Key' }, ...body }), { status: 422, body: { code: 'invalid_request', errors: [{ pointer }] } }, `${method} ${JSON.stringify(body).slice(0, 60)}`)
      }
    }
    t.match((await call('POST', `/projects/${projectId}/keys`, { name: '', scopes: ['no'], expiresAt: 'x' })).body.errors.length, 3, 'all faults at once')
    t.match((await call('GET', key.at)).body, { version: 1 }, 'nothing half-done remains')
    t.equal((await call('GET', `/projects/${projectId}/keys`)).body.data.length, 1)
  })

  await t.test('GX-17 wrong shapes and unknown fields are 400, and nothing is stored', async t => {
    const projectId = await newProject()
    const key = await newKey(projectId)
    for (const body of [
      ...['id', 'hash', 'hint', 'digest', 'ciphertext', 'encryptionKeyId', 'pepperId', 'projectId', 'tenantId', 'status', 'version', 'effective', 'effectiveAt', 'lastUsedAt', 'createdAt', 'createdBy', 'secret', 'sealed', 'roleId', 'rotation', 'loggedForAll', '__proto__x'].map(field => ({ name: 'x', [field]: 'y' })),
      { name: 1 }, { name: null }, { name: ['x'] }, { name: 'x', scopes: 'submissions' }, { name: 'x', scopes: [1] }, { name: 'x', scopes: null }, { name: 'x', allowedForAll: 'true' }, { name: 'x', allowedForAll: 1 }, { name: 'x', allowedForAll: null },
      { name: 'x', expiresAt: 5 }, { name: 'x', expiresAt: {} }, { name: 'x', allowedHosts: '192.0.2.1' }, { name: 'x', allowedHosts: [null] }, { name: 'x', policies: {} }, { name: 'x', policies: [{}] }, { name: 'x', policies: [{ name: 'p', limit: 1.5, windowSeconds: 1 }] },
      { name: 'x', policies: [{ name: 'p', limit: 1, windowSeconds: 1, whenStoreIsDown: false }] }, { name: 'x', policies: [{ name: 'p', limit: 1, windowSeconds: 1, whenRedisIsDown: 'open' }] }, { name: 'x', description: 5 },
      { name: 'x', role: 5 }, { name: 'x', role: ['r'] }, { name: 'x', sealed: null }, { name: 'x', sealed: 'false' }, { name: 'x', logging: null }, { name: 'x', logging: true }, { name: 'x', logging: { all: true } }, { name: 'x', logging: { until: null } },
      { name: 'x', logging: { scopes: ['submissions'] } }, { name: 'x', logging: { scopes: { submissions: 1 } } }, { name: 'x', import: null }, { name: 'x', import: 'secret' }, { name: 'x', import: {} }, { name: 'x', import: { hint: 'x' } }, { name: 'x', import: { secret: 1 } }
    ]) {
      t.match(await call('POST', `/projects/${projectId}/keys`, body), { status: 400, body: { status: 400 } }, `POST ${JSON.stringify(body)}`)
      t.match(await call('PATCH', key.at, body), { status: 400 }, `PATCH ${JSON.stringify(body)}`)
    }
    t.match(await call('POST', `/projects/${projectId}/keys`, {}), { status: 400, body: { errors: [{ pointer: '/name', message: 'is required' }] } })
    t.match(await call('PATCH', key.at, { active: false }), { status: 400 }, 'disable has its own route')
    t.match(await call('PATCH', key.at, {}), { status: 400 }, 'empty patch')
    t.same((await call('GET', `/projects/${projectId}/keys`)).body.data.length, 1)
  })

  await t.test('bad bodies on every route that takes one are problems, never 500', async t => {
    const projectId = await newProject()
    const key = await newKey(projectId)
    const raw = async (method: string, path: string, payload: string | Buffer, type = 'application/json') =>
      await app.app.inject({ method: method as 'POST', url: `/v1${path}`, headers: { authorization: `Bearer ${tokens.all}`, 'content-type': type }, payload })
    for (const [method, path] of [['POST', '/projects'], ['PATCH', `/projects/${projectId}`], ['POST', `/projects/${projectId}/keys`], ['PATCH', key.at], ['POST', '/verifications'], ['POST', `${key.at}/rotate`], ['PATCH', `${key.at}/rotate`], ['POST', `${key.at}/revoke`], ['POST', `${key.at}/disable`], ['POST', `${key.at}/reveal`], ['POST', `/projects/${projectId}/roles`]] as const) {
      for (const [payload, type, status] of [
        ['{', undefined, 400], ['null', undefined, 400], ['[]', undefined, 400], ['"x"', undefined, 400], ['1', undefined, 400], ['{"__proto__":{"name":"x"}}', undefined, 400], ['{"name":"\\ud800"', undefined, 400],
        ['name=x', 'application/x-www-form-urlencoded', 415], ['{}', 'text/plain', 415], [`{"name":"${'x'.repeat(300_000)}"}`, undefined, 413]
      ] as const) {
        const response = await raw(method, path, payload, type)
        t.match(response, { statusCode: status, headers: { 'content-type': /application\/problem\+json/ } }, `${method} ${path} ${payload.slice(0, 20)}`)
      }
    }
    const create = async (payload: string | Buffer, type?: string) => await raw('POST', '/projects', payload, type)
    t.match(await create(Buffer.from('{"name":"\xff\xfe"}', 'latin1')), { statusCode: 400, body: /not UTF-8/ }, 'bytes that are no text are not stored as U+FFFD')
    t.match(await create('{"name":"x"}', 'application/json; charset=iso-8859-1'), { statusCode: 415, body: /UTF-8/ })
    t.match(await create('{"name":"x"}', 'application/merge-patch+json;foo=bar; charset="utf-16"'), { statusCode: 415 })
    for (const type of ['application/json; charset=utf-8', 'application/json;charset="UTF-8"', 'application/json; foo=bar']) t.equal((await create('{"name":"Bücher 📚"}', type)).json().name, 'Bücher 📚', type)
    for (const body of ['{"__proto__":{"name":"x"}}', '{"name":"x","constructor":{"prototype":{}}}']) t.match(await create(body), { statusCode: 400, body: /__proto__/ }, body)
    t.match(await create('{"__proto__":{}'), { statusCode: 400, body: /not valid JSON/ })
    t.equal((await raw('POST', `${key.at}/rotate`, '')).statusCode, 200, 'an announced but empty body is no body')
    t.equal((await raw('POST', '/projects', '')).statusCode, 400)
    for (const digest of ['', 'x', 'A'.repeat(44), `${'A'.repeat(42)}B`, `${'A'.repeat(42)}\u0000`]) t.match(await call('POST', '/verifications', { digest }), { status: 422 }, JSON.stringify(digest))
    t.match(await call('POST', '/verifications', { digest: digestSecret('x'), projectId: 'x' }), { status: 422 })
    t.match(await call('POST', '/verifications', {}), { status: 400 })
    const hostile = ['\'; DROP TABLE keys; --', '$1', '%', '\\', '{{7*7}}', '<script>', '../../etc/passwd', '\u202e\u0000', 'Ω≈ç√', '1e309', 'NaN', 'null', '🏳️‍🌈', '\r\nx: y']
    for (const text of hostile) {
      for (const status of [
        (await call('POST', `/projects/${projectId}/keys`, { name: text, description: text, scopes: [text], allowedHosts: [text], expiresAt: text, policies: [{ name: text, limit: 1, window: text }] })).status,
        (await call('GET', `/projects/${projectId}/keys?search=${encodeURIComponent(text)}&cursor=${encodeURIComponent(text)}`)).status,
        (await call('GET', `/projects/${encodeURIComponent(text)}`)).status,
        (await call('GET', `/changes?after=${encodeURIComponent(text)}`)).status,
        (await call('GET', key.at, undefined, text.replace(/[^ -~]/g, ''))).status
      ]) t.ok(status >= 400 && status < 500, `${JSON.stringify(text)}: ${status}`)
    }
    t.equal((await call('GET', `/projects/${projectId}/keys`)).body.data.length, 1)
  })

  await t.test('GX-19 no token: 401; a token without the permission: 403 with its name; other routes: 404', async t => {
    const projectId = await newProject()
    const key = await newKey(projectId)
    const routes: Array<[string, string, string, object?]> = [
      ['POST', '/projects', 'projects:create', { name: 'x' }], ['GET', '/projects', 'projects:read'], ['GET', `/projects/${projectId}`, 'projects:read'], ['PATCH', `/projects/${projectId}`, 'projects:update', { name: 'x' }], ['DELETE', `/projects/${projectId}`, 'projects:delete'],
      ['POST', `/projects/${projectId}/keys`, 'keys:create', { name: 'x' }], ['GET', `/projects/${projectId}/keys`, 'keys:read'], ['GET', key.at, 'keys:read'], ['PATCH', key.at, 'keys:update', { name: 'x' }], ['DELETE', key.at, 'keys:revoke'],
      ['POST', `${key.at}/disable`, 'keys:update'], ['POST', `${key.at}/enable`, 'keys:update'], ['POST', `${key.at}/rotate`, 'keys:rotate'], ['PATCH', `${key.at}/rotate`, 'keys:rotate', { gracePeriodSeconds: 60 }], ['POST', `${key.at}/rotate/finish`, 'keys:rotate'], ['POST', `${key.at}/revoke`, 'keys:revoke'], ['POST', `${key.at}/reveal`, 'keys:reveal', { reason: 'setting up' }],
      ['POST', `/projects/${projectId}/roles`, 'roles:write', { name: 'x' }], ['GET', `/projects/${projectId}/roles`, 'keys:read'], ['GET', `/projects/${projectId}/roles/${unknownRole}`, 'keys:read'], ['PATCH', `/projects/${projectId}/roles/${unknownRole}`, 'roles:write', { name: 'x' }], ['DELETE', `/projects/${projectId}/roles/${unknownRole}`, 'roles:write']
    ]
    for (const [method, path, permission, body] of routes) {
      t.match(await call(method, path, body, tokens.verify), { status: 403, body: { code: 'forbidden', detail: new RegExp(permission) } }, `${method} ${path}`)
    }
    for (const [method, path, body] of [['POST', '/verifications', { digest: digestSecret(key.secret) }], ['GET', '/changes']] as const) {
      t.match(await call(method, path, body, tokens.reader), { status: 403, body: { detail: /keys:verify/ } })
      t.equal((await call(method, path, body, tokens.verify)).status, 200)
    }
    const bodies = new Set<string>()
    for (const authorization of [undefined, '', 'Bearer', 'Bearer ', 'Bearer kgs_', `Bearer ${generateSecret('kgs')}`, `Basic ${Buffer.from(`${projectId}:${key.secret}`).toString('base64')}`, `Bearer ${key.secret}`, `Bearer ${tokens.all} x`, tokens.all]) {
      for (const [method, path] of [...routes, ['POST', '/verifications'], ['GET', '/changes']] as const) {
        const response = await app.app.inject({ method: method as 'GET', url: `/v1${path}`, headers: { 'x-request-id': 'same', ...authorization !== undefined && { authorization } } })
        t.match(response, { statusCode: 401, headers: { 'www-authenticate': 'Bearer' } }, `${String(authorization).slice(0, 12)} ${method} ${path}`)
        bodies.add(response.body)
      }
    }
    t.equal(bodies.size, 1, 'whatever was wrong, the answer is the same to the byte')
    t.equal((await app.app.inject({ url: '/v1/projects', headers: { authorization: `bearer  ${tokens.all}` } })).statusCode, 200, 'the scheme in any case')
    t.equal((await call('GET', '/nowhere')).status, 404)
    t.equal((await call('PUT', key.at)).status, 404)
    await withDatabase(house, app, async sql => { await sql`UPDATE service_tokens SET expires_at = now() WHERE name = 'reader'` })
    t.equal((await call('GET', '/projects', undefined, tokens.reader)).status, 401, 'an expired token')
    t.equal((await call('GET', key.at)).body.version, 1, 'nothing was changed')
  })

  await t.test('GX-16, K13 another project is 404 for a bound token, and a key in another project\'s path for everyone', async t => {
    await withDatabase(house, app, async sql => { await sql`INSERT INTO projects (id, name, created_by) VALUES (${boundProject}, 'Bound', 'test')` })
    const other = await newKey(await newProject())
    const own = await newKey(boundProject)
    const foreign: Array<[string, string, object?]> = [
      ['GET', `/projects/${other.projectId}`], ['PATCH', `/projects/${other.projectId}`, { name: 'x' }], ['DELETE', `/projects/${other.projectId}`], ['POST', `/projects/${other.projectId}/keys`, { name: 'x' }], ['GET', `/projects/${other.projectId}/keys`],
      ...(['', '/disable', '/enable', '/rotate', '/rotate/finish', '/revoke'].flatMap(path => [other.at, `/projects/${boundProject}/keys/${other.id}`].map((at): [string, string] => [path === '' ? 'GET' : 'POST', at + path]))),
      ['POST', `${other.at}/reveal`, { reason: 'setting up' }], ['POST', `/projects/${boundProject}/keys/${other.id}/reveal`, { reason: 'setting up' }], ['PATCH', `${other.at}/rotate`, { gracePeriodSeconds: 60 }],
      ['PATCH', other.at, { name: 'x' }], ['DELETE', other.at], ['PATCH', `/projects/${boundProject}/keys/${other.id}`, { name: 'x' }], ['DELETE', `/projects/${boundProject}/keys/${other.id}`]
    ]
    for (const [method, path, body] of foreign) t.match(await call(method, path, body, tokens.bound), { status: 404 }, `${method} ${path}`)
    t.match(await call('GET', `/projects/${other.projectId}/keys/${own.id}`), { status: 404 }, 'right key, wrong project')
    const same = async (path: string) => (await app.app.inject({ url: `/v1${path}`, headers: { authorization: `Bearer ${tokens.bound}`, 'x-request-id': 'same' } })).body
    t.equal(await same(`/projects/${other.projectId}`), await same(`/projects/${unknownProject}`), 'foreign and unknown are the same to the byte')
    t.match(await call('GET', `/projects/${boundProject.toUpperCase()}`, undefined, tokens.bound), { status: 200 })
    t.same((await call('GET', '/projects', undefined, tokens.bound)).body.data.map((project: { id: string }) => project.id), [boundProject])
    t.match(await call('POST', '/projects', { name: 'x' }, tokens.bound), { status: 403 })
    t.equal((await call('POST', '/verifications', { digest: digestSecret(other.secret) }, tokens.bound)).body.outcome, 'unknown')
    t.equal((await call('POST', '/verifications', { digest: digestSecret(own.secret) }, tokens.bound)).body.outcome, 'found')
    const changes = (await call('GET', '/changes?after=1', undefined, tokens.bound)).body.data
    t.same([...new Set(changes.map((change: { projectId: string }) => change.projectId))], [boundProject])
    t.equal((await call('GET', other.at)).body.version, 1, 'nothing was changed')
  })

  await t.test('a deleted project takes its keys with it', async t => {
    const projectId = await newProject()
    const keys = [await newKey(projectId), await newKey(projectId)]
    const { cursor } = await verify(keys[0]?.secret)
    const [deleted, ...creations] = await Promise.all([call('DELETE', `/projects/${projectId}`), ...Array.from({ length: 5 }, async () => await call('POST', `/projects/${projectId}/keys`, { name: 'late' }))])
    t.equal(deleted.status, 204)
    const late = creations.filter(answer => answer.status === 201).map(answer => answer.body)
    t.ok(creations.every(answer => [201, 404].includes(answer.status)))
    for (const key of [...keys, ...late]) t.equal((await verify(key.secret)).outcome, 'unknown')
    for (const path of ['', '/keys', `/keys/${keys[0]?.id}`]) t.equal((await call('GET', `/projects/${projectId}${path}`)).status, 404)
    const changes = (await call('GET', `/changes?after=${cursor}`)).body.data
    const versions = Object.fromEntries(changes.filter((c: { projectId: string }) => c.projectId === projectId).map((c: { keyId: string, version: number }) => [c.keyId, c.version]))
    t.equal(versions['*'], 2, 'the project\'s version is raised, which every record of its keys carries')
    t.same(await app.parts.redis.client.hget(`kg:{${projectId}}:versions`, '*'), '2')
  })

  await t.test('the document: OpenAPI 3.1, security, problems, examples; and its page', async t => {
    const document = (await app.app.inject('/openapi.json')).json()
    t.equal(document.openapi, '3.1.0')
    t.match(document.components.securitySchemes, { serviceToken: { type: 'http', scheme: 'bearer' } })
    const operations = Object.values(document.paths).flatMap(path => Object.values(path as object))
    t.equal(new Set(operations.map(operation => operation.operationId)).size, operations.length)
    const ours = operations.filter(operation => ['keys', 'roles', 'verification'].includes(operation.tags[0]))
    t.equal(ours.length, 22)
    for (const operation of ours) t.match(operation, { summary: String, responses: { 401: {}, 403: {}, 500: {}, 503: {} } }, operation.operationId)
    t.match(document.paths['/v1/projects/{projectId}/keys'].post.responses['201'].content['application/json'].schema, { $ref: '#/components/schemas/KeyWithSecret' })
    t.match(document.components.schemas, { Key: { examples: [{ id: /^key_/ }] }, Role: { examples: [{ id: /^role_/ }] }, Problem: {}, Project: {} })
    t.match(await app.app.inject('/docs'), { statusCode: 200, headers: { 'content-type': /html/ } })
  })
})

async function withDatabase (house: House, { parts }: TestApp, work: (sql: House['admin']) => Promise<void>): Promise<void> {
  const { default: postgres } = await import('postgres')
  const [row] = await parts.database.run(async db => await db.execute<{ name: string }>('SELECT current_database() AS name'))
  const sql = postgres(`postgres://postgres@127.0.0.1:${house.postgres.port}/${row?.name}`, { max: 1, onnotice: () => {} })
  try {
    await work(sql)
  } finally {
    await sql.end()
  }
}

async function expire (house: House, app: TestApp, keyId: string): Promise<void> {
  await withDatabase(house, app, async sql => { await sql`UPDATE keys SET expires_at = now() - interval '1 second' WHERE id = ${keyId}` })
}
