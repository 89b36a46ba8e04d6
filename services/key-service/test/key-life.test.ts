import { randomUUID } from 'node:crypto'
import { digestSecret, generateSecret } from '@keygate/api-key'
import postgres from 'postgres'
import { test } from 'tap'
import { Compile } from 'typebox/compile'
import { VerificationOutcome } from '@keygate/contracts'
import type { Config } from '../src/config.ts'
import { createLastUse } from '../src/keys/last-use.ts'
import { createPeppers } from '../src/vault/peppers.ts'
import { createVault } from '../src/vault/vault.ts'
import { configFor, redisIsReady, startApp, startHouse, tokens, type Answer } from './helper.ts'
import { newPerson, password } from './people-helper.ts'

const unknownKey = 'key_0000000000000000000000'
const reason = 'the new server needs it'

test('the life of a key', async t => {
  const house = await startHouse(t)

  /** An app on a database of its own, with a superuser's connection to it. */
  async function start (overrides: Partial<Config> = {}, database?: string) {
    const url = database ?? await house.database()
    const sql = postgres(url.replace('keygate@', 'postgres@'), { max: 1, onnotice: () => {} })
    t.teardown(async () => { await sql.end({ timeout: 1 }) })
    const config = configFor(t, url, house.redis.url, overrides)
    const app = await startApp(t, config)
    await redisIsReady(app)
    const { call } = app
    const newProject = async () => (await call('POST', '/projects', { name: 'P' })).body.id as string
    const newKey = async (projectId: string, body: object = {}) => {
      const answer = await call('POST', `/projects/${projectId}/keys`, { name: 'Key', scopes: ['submissions'], ...body })
      if (answer.status !== 201) throw new Error(answer.text)
      return { ...answer.body, etag: answer.headers.etag as string, at: `/projects/${projectId}/keys/${answer.body.id}` }
    }
    const verify = async (secret: string) => (await call('POST', '/verifications', { digest: digestSecret(secret) })).body
    const atOnce = async (ask: (i: number) => Promise<Answer>) => await Promise.all(Array.from({ length: 20 }, async (_, i) => await ask(i)))
    const stored = async (keyId: string) => (await sql`
      SELECT k.version::int, k.status, k.description, (SELECT count(*)::int FROM secrets s WHERE s.key_id = k.id) AS secrets,
        (SELECT count(*)::int FROM audit_events a WHERE a.key_id = k.id) AS audited, (SELECT count(*)::int FROM outbox o WHERE o.key_id = k.id) AS raised
      FROM keys k WHERE k.id = ${keyId}`)[0]
    return { url, sql, config, app, call, newProject, newKey, verify, atOnce, stored }
  }
  const main = await start()
  const { sql, app, call, newProject, newKey, verify, atOnce, stored } = main
  const match = (etag: string) => ({ 'if-match': etag })
  const count = (answers: Answer[], status: number) => answers.filter(answer => answer.status === status).length

  await t.test('the ETag of a key is its version; If-Match is required for PATCH and honoured everywhere', async t => {
    const key = await newKey(await newProject())
    t.equal(key.etag, '"1"')
    t.equal((await call('GET', key.at)).headers.etag, '"1"')
    t.match(await call('PATCH', key.at, { name: 'x' }, undefined, {}), { status: 428, body: { code: 'precondition_required', detail: /If-Match: "3"/ } })
    t.match(await call('PATCH', key.at, { name: 'x' }, undefined, match('"2"')), { status: 412, headers: { etag: '"1"' }, body: { code: 'version_conflict', detail: /version "1"/ } })
    t.match(await call('PATCH', key.at, { name: 'x' }, undefined, match('W/"1"')), { status: 412 }, 'a weak tag never matches')
    for (const wrong of ['1', '"1', '1"', '', '"1" "2"', '"1",', 'abc', '*, "1"']) t.match(await call('PATCH', key.at, { name: 'x' }, undefined, match(wrong)), { status: 400, body: { code: 'invalid_precondition' } }, wrong)
    t.match((await call('GET', key.at)).body, { name: 'Key', version: 1 }, 'nothing was changed')
    t.match(await call('PATCH', key.at, { name: 'x' }, undefined, match('"7", "1"')), { status: 200, headers: { etag: '"2"' }, body: { version: 2 } }, 'one of a list')
    t.match(await call('PATCH', key.at, { name: 'y' }, undefined, match('*')), { status: 200, headers: { etag: '"3"' } })
    t.match(await call('PATCH', `/projects/${key.projectId}/keys/${unknownKey}`, { name: 'x' }, undefined, match('*')), { status: 404 })

    let version = 3
    for (const [method, path, body] of [['POST', '/rotate', { gracePeriodSeconds: 600 }], ['PATCH', '/rotate', { gracePeriodSeconds: 60 }], ['POST', '/rotate/finish'], ['POST', '/disable'], ['POST', '/enable'], ['POST', '/revoke'], ['DELETE', '']] as const) {
      t.match(await call(method, key.at + path, body, undefined, match(`"${version - 1}"`)), { status: 412, body: { code: 'version_conflict' } }, `${method} ${path}: somebody was faster`)
      t.equal((await stored(key.id))?.['version'], version, 'nothing was changed')
      const done = await call(method, key.at + path, body, undefined, match(`"${version}"`))
      version++
      t.equal(done.status, method === 'DELETE' ? 204 : 200, `${method} ${path}`)
      if (method !== 'DELETE') t.equal(done.headers.etag, `"${version}"`)
    }
    const other = await newKey(key.projectId)
    for (const [method, path, body] of [['POST', '/rotate', { gracePeriodSeconds: 600 }], ['PATCH', '/rotate', { gracePeriodSeconds: 60 }], ['POST', '/rotate/finish'], ['POST', '/disable'], ['POST', '/enable'], ['POST', '/revoke'], ['DELETE', '']] as const) {
      t.ok((await call(method, other.at + path, body, undefined, {})).status < 300, `${method} ${path}: not required`)
    }
  })

  await t.test('20 at once: edit with one ETag, exactly one 200 and nineteen 412', async t => {
    const key = await newKey(await newProject())
    const answers = await atOnce(async i => await call('PATCH', key.at, { description: `edit ${i}` }, undefined, match(key.etag)))
    t.same([count(answers, 200), count(answers, 412)], [1, 19])
    const winner = answers.find(answer => answer.status === 200) as Answer
    t.match(await stored(key.id), { version: 2, description: winner.body.description, audited: 2, raised: 2 })
  })

  await t.test('K4, 20 at once: rotate, revoke, delete have one consistent outcome each', async t => {
    const projectId = await newProject()
    const rotated = await newKey(projectId)
    const rotations = await atOnce(async () => await call('POST', `${rotated.at}/rotate`))
    t.equal(count(rotations, 200), 20)
    t.match(await stored(rotated.id), { version: 21, secrets: 1, audited: 21, raised: 21 }, 'one live secret, each rotation a change of its own')
    const outcomes = await Promise.all([rotated.secret, ...rotations.map(answer => answer.body.secret)].map(async secret => (await verify(secret)).outcome))
    t.equal(outcomes.filter(outcome => outcome === 'found').length, 1, 'and some caller got it')
    const tagged = await atOnce(async () => await call('POST', `${rotated.at}/rotate`, { gracePeriodSeconds: 600 }, undefined, match('"21"')))
    t.same([count(tagged, 200), count(tagged, 412)], [1, 19], 'with one ETag: one rotation')
    t.match(await stored(rotated.id), { version: 22, secrets: 2 })

    const revoked = await newKey(projectId)
    const revocations = await atOnce(async i => await call('POST', `${revoked.at}/revoke`, { reason: `reason ${i}` }))
    t.same([count(revocations, 200), count(revocations, 409)], [1, 19])
    t.match(await stored(revoked.id), { version: 2, status: 'revoked', audited: 2, raised: 2 })

    const deleted = await newKey(projectId)
    const deletions = await atOnce(async () => await call('DELETE', deleted.at))
    t.same([count(deletions, 204), count(deletions, 404)], [1, 19])
    t.match(await stored(deleted.id), { version: 2, status: 'deleted', secrets: 0, audited: 2, raised: 2 })
  })

  await t.test('row 10, D5 a rotation changes nothing but the secret', async t => {
    const projectId = await newProject()
    await call('POST', `/projects/${projectId}/roles`, { name: 'R', scopes: ['exports'] })
    const { secret, etag, at, ...before } = await newKey(projectId, {
      description: 'd',
      scopes: ['submissions', 'files'],
      role: 'R',
      allowedForAll: true,
      expiresAt: '2090-01-01',
      allowedHosts: ['192.0.2.1'],
      policies: [{ name: 'p', limit: 5, windowSeconds: 60 }],
      logging: { all: '2089-01-01', scopes: { files: 'forever', exports: '2088-01-01' } }
    })
    const rotated = await call('POST', `${at}/rotate`)
    const { secret: next, ...after } = rotated.body
    t.not(next, secret)
    t.strictSame(after, { ...before, hint: `kg_…${next.slice(-4)}`, version: 2, effectiveAt: after.effectiveAt })
    const graced = await call('POST', `${at}/rotate`, { gracePeriodSeconds: 600 })
    const { secret: last, ...again } = graced.body
    t.strictSame(again, { ...after, hint: `kg_…${last.slice(-4)}`, version: 3, effectiveAt: again.effectiveAt, rotation: again.rotation })
    const [old, current] = [(await verify(next)).record, (await verify(last)).record]
    t.strictSame({ ...old, secretId: current.secretId, secretState: 'current', secretNotAfterMs: null, secretRetiredAtMs: null }, current, 'both secrets give the same rights')
  })

  await t.test('a rotation shows itself, can be extended and shortened, and is cut to the expiry', async t => {
    const key = await newKey(await newProject(), { expiresAt: '2090-01-01T00:00:00.000Z' })
    t.match(await call('PATCH', `${key.at}/rotate`, { gracePeriodSeconds: 60 }), { status: 409, body: { code: 'no_rotation' } })
    const before = Date.now()
    const { body: rotated } = await call('POST', `${key.at}/rotate`, { gracePeriodSeconds: 3600 })
    t.match(rotated.rotation, { until: String, startedAt: String, oldSecretHint: key.hint, oldSecretLastUsedAt: null })
    t.equal(Date.parse(rotated.rotation.until) - Date.parse(rotated.rotation.startedAt), 3_600_000)
    const retiring = (await verify(key.secret)).record
    t.ok(Compile(VerificationOutcome).Check(await verify(key.secret)), 'the shape of the contract')
    t.match(retiring, { secretState: 'retiring', secretNotAfterMs: Date.parse(rotated.rotation.until), secretRetiredAtMs: Date.parse(rotated.rotation.startedAt) })
    t.ok(retiring.secretRetiredAtMs >= before - 60_000)
    t.match((await verify(rotated.secret)).record, { secretState: 'current', secretRetiredAtMs: null })

    const extended = await call('PATCH', `${key.at}/rotate`, { gracePeriodSeconds: 86_400 })
    t.match(extended, { status: 200, headers: { etag: '"3"' }, body: { version: 3, effective: 'everywhere', rotation: { startedAt: rotated.rotation.startedAt } } })
    t.notOk('secret' in extended.body)
    const later = (await verify(key.secret)).record
    t.equal(later.secretNotAfterMs, Date.parse(extended.body.rotation.until))
    t.ok(later.secretNotAfterMs > retiring.secretNotAfterMs, 'later')
    const shortened = await call('PATCH', `${key.at}/rotate`, { gracePeriodSeconds: 60 })
    t.ok(Date.parse(shortened.body.rotation.until) < Date.parse(rotated.rotation.until), 'sooner, counted from now')
    await call('PATCH', key.at, { expiresAt: new Date(Date.now() + 3_600_000).toISOString() })
    const cut = await call('PATCH', `${key.at}/rotate`, { gracePeriodSeconds: 86_400 })
    t.equal(cut.body.rotation.until, cut.body.expiresAt, 'a grace ends with the key')
    for (const [body, status] of [[{ gracePeriodSeconds: 0 }, 422], [{ gracePeriodSeconds: 366 * 86_400 + 1 }, 422], [{ gracePeriodSeconds: '60' }, 400], [{}, 400], [undefined, 400]] as const) t.equal((await call('PATCH', `${key.at}/rotate`, body)).status, status, JSON.stringify(body))

    await sql`UPDATE secrets SET not_after = now() - interval '1 second' WHERE key_id = ${key.id} AND state = 'retiring'`
    t.equal((await call('GET', key.at)).body.rotation, null, 'over by time')
    t.match(await call('PATCH', `${key.at}/rotate`, { gracePeriodSeconds: 60 }), { status: 409, body: { code: 'no_rotation' } }, 'what is over is not brought back')
    t.match(await call('POST', `${key.at}/rotate/finish`), { status: 409, body: { code: 'no_rotation' } })
    t.match((await sql`SELECT action FROM audit_events WHERE key_id = ${key.id} AND action = 'key.extendRotation'`).length, 3)
  })

  await t.test('K26 reveal shows the current secret, and leaves an audit row with person, key and reason in the same transaction', async t => {
    const key = await newKey(await newProject())
    t.match(await call('POST', `${key.at}/reveal`, { reason }), { status: 200, headers: { 'cache-control': 'no-store' }, body: { secret: key.secret } })
    const [row] = await sql`SELECT actor_name, actor_id, project_id, key_id, details FROM audit_events WHERE action = 'key.reveal'`
    t.match(row, { actor_name: 'all', actor_id: /^tok_/, project_id: key.projectId, key_id: key.id, details: { reason } })
    t.notMatch(JSON.stringify(await sql`SELECT * FROM audit_events`), key.secret)
    t.match((await call('GET', key.at)).body, { version: 1 }, 'no change of the key')
    t.match(await app.app.inject({ method: 'POST', url: `/v1/projects/${key.projectId.toUpperCase()}/keys/${key.id}/reveal`, headers: { authorization: `Bearer ${tokens.all}` }, payload: { reason } }), { statusCode: 200 }, 'however the path spells the project')

    const { body: rotated } = await call('POST', `${key.at}/rotate`, { gracePeriodSeconds: 600 })
    t.equal((await call('POST', `${key.at}/reveal`, { reason })).body.secret, rotated.secret, 'the current one, not the one that retires')
    for (const [body, status] of [[{ reason: 'ab' }, 422], [{ reason: '  a ' }, 422], [{ reason: 'x'.repeat(201) }, 422], [{ reason: 'a\u0007bc' }, 422], [{ reason: 5 }, 400], [{}, 400], [undefined, 400], [{ reason, secret: 'x' }, 400]] as const) t.equal((await call('POST', `${key.at}/reveal`, body)).status, status, JSON.stringify(body)?.slice(0, 30))

    const before = (await sql`SELECT count(*) FROM audit_events`)[0]
    await sql`REVOKE INSERT ON audit_events FROM keygate`
    const unrecorded = await call('POST', `${key.at}/reveal`, { reason })
    t.equal(unrecorded.status, 500)
    t.notMatch(unrecorded.text, rotated.secret, 'what cannot be recorded is not shown')
    await sql`GRANT INSERT ON audit_events TO keygate`
    t.same((await sql`SELECT count(*) FROM audit_events`)[0], before)

    await call('POST', `${key.at}/disable`)
    t.equal((await call('POST', `${key.at}/reveal`, { reason })).status, 200, 'a disabled key can be prepared')
    await call('POST', `${key.at}/revoke`)
    t.match(await call('POST', `${key.at}/reveal`, { reason }), { status: 409, body: { code: 'key_revoked' } })
    await call('DELETE', key.at)
    t.match(await call('POST', `${key.at}/reveal`, { reason }), { status: 404 })
    t.same(await sql`SELECT id FROM secrets WHERE key_id = ${key.id}`, [], 'and the ciphertext is gone')
  })

  await t.test('K26 a person reveals with a recent password alone, and stands in the trail', async t => {
    const key = await newKey(await newProject())
    const owner = await newPerson(app, main.config, { email: 'owner@example.org', project: key.projectId, role: 'owner' })
    t.match(await owner.call('POST', `${key.at}/reveal`, { reason }), { status: 200, body: { secret: key.secret } })
    t.match((await sql`SELECT actor_type, actor_id, actor_name FROM audit_events WHERE action = 'key.reveal' AND key_id = ${key.id}`)[0], { actor_type: 'person', actor_id: owner.id })
    await sql`UPDATE sessions SET authenticated_at = authenticated_at - interval '11 minutes' WHERE user_id = ${owner.id}`
    t.match(await owner.call('POST', `${key.at}/reveal`, { reason }), { status: 403, body: { code: 'confirmation_required' } })
    t.equal((await owner.call('GET', key.at)).status, 200, 'the session itself goes on')
    t.equal((await owner.call('POST', '/me/confirm', { password })).status, 204)
    t.equal((await owner.call('POST', `${key.at}/reveal`, { reason })).status, 200)
  })

  await t.test('a sealed key is never shown again: at creation, by PATCH, and without an encryption key', async t => {
    const projectId = await newProject()
    const kept = async (keyId: string) => (await sql`SELECT ciphertext FROM secrets WHERE key_id = ${keyId} AND ciphertext IS NOT NULL`).length
    const sealed = await newKey(projectId, { sealed: true })
    t.match([sealed.sealed, await kept(sealed.id)], [true, 0])
    t.match(await call('POST', `${sealed.at}/reveal`, { reason }), { status: 409, body: { code: 'key_sealed', detail: /Rotate/ } })
    t.match(await call('PATCH', sealed.at, { sealed: false }), { status: 422, body: { errors: [{ pointer: '/sealed' }] } })
    t.match((await call('PATCH', sealed.at, { sealed: true })).body, { sealed: true, version: 2 })
    await call('POST', `${sealed.at}/rotate`, { gracePeriodSeconds: 600 })
    t.equal(await kept(sealed.id), 0, 'nor is its next secret kept')

    const open = await newKey(projectId)
    const { body: rotated } = await call('POST', `${open.at}/rotate`, { gracePeriodSeconds: 600 })
    t.match([open.sealed, await kept(open.id)], [false, 2])
    t.match((await call('PATCH', open.at, { sealed: false })).body, { sealed: false })
    t.match((await call('PATCH', open.at, { sealed: true })).body, { sealed: true })
    t.equal(await kept(open.id), 0, 'both ciphertexts are dropped for good')
    t.match(await call('POST', `${open.at}/reveal`, { reason }), { status: 409, body: { code: 'key_sealed' } })
    for (const secret of [open.secret, rotated.secret]) t.equal((await verify(secret)).outcome, 'found', 'it works on')

    const without = await start({ encryptionKeys: undefined })
    const other = await without.newProject()
    t.match(await without.call('POST', `/projects/${other}/keys`, { name: 'K', sealed: false }), { status: 422, body: { errors: [{ pointer: '/sealed', message: /KEYGATE_ENCRYPTION_KEY/ }] } })
    const key = await without.newKey(other)
    t.equal(key.sealed, true, 'the default')
    t.match(await without.call('POST', `${key.at}/reveal`, { reason }), { status: 409, body: { code: 'key_sealed' } })
  })

  await t.test('GX-22 a ciphertext with any part changed, or under a lost key: "cannot be shown", audited, never garbage', async t => {
    const projectId = await newProject()
    const [key, other] = [await newKey(projectId), await newKey(projectId)]
    const [row] = await sql`SELECT id, ciphertext FROM secrets WHERE key_id = ${key.id}`
    const ciphertext = row?.['ciphertext'] as string
    t.notMatch(ciphertext, key.secret)
    const [version, id, ...encoded] = ciphertext.split(':') as [string, string, ...string[]]
    const flipped = encoded.map((text, part) => {
      const bytes = Buffer.from(text, 'base64url')
      bytes.writeUInt8(bytes.readUInt8(0) ^ 1, 0)
      return [version, id, ...encoded.map((all, i) => i === part ? bytes.toString('base64url') : all)].join(':')
    })
    const [foreign] = await sql`SELECT ciphertext FROM secrets WHERE key_id = ${other.id}`
    for (const wrong of [...flipped, foreign?.['ciphertext'] as string, 'v1', '', `v2:${ciphertext.slice(3)}`]) {
      await sql`UPDATE secrets SET ciphertext = ${wrong} WHERE id = ${row?.['id']}`
      const answer = await call('POST', `${key.at}/reveal`, { reason })
      t.match(answer, { status: 409, body: { code: 'secret_cannot_be_shown', detail: /damaged. Rotate/ } }, wrong.slice(0, 12))
      t.notOk('secret' in answer.body)
    }
    const lost = createVault({ current: { id: 'lost', value: Buffer.alloc(32, 'another') }, previous: [] }).encrypt(key.secret, { projectId, keyId: key.id, use: 'secret' })
    await sql`UPDATE secrets SET ciphertext = ${lost} WHERE id = ${row?.['id']}`
    t.match(await call('POST', `${key.at}/reveal`, { reason }), { status: 409, body: { code: 'secret_cannot_be_shown', detail: /KEYGATE_PREVIOUS_ENCRYPTION_KEYS/ } })
    const audited = await sql`SELECT details FROM audit_events WHERE key_id = ${key.id} AND action = 'key.reveal' ORDER BY id`
    t.equal(audited.length, 8)
    t.match(audited[0], { details: { reason, cannot: 'damaged' } })
    t.match(audited[7], { details: { cannot: 'no-key' } })
    t.equal((await verify(key.secret)).outcome, 'found', 'verification needs no ciphertext')
  })

  await t.test('D6 where keys live at most so many days, every new one says until when, and no edit makes it longer', async t => {
    const { call, newProject, sql } = await start({ keyMaxDays: 30 })
    const collection = `/projects/${await newProject()}/keys`
    const day = (days: number): string => new Date(Date.now() + days * 86_400_000).toISOString().slice(0, 10)
    for (const expiresAt of [undefined, null, day(32), '9999-12-31']) {
      t.match(await call('POST', collection, { name: 'K', expiresAt }), { status: 422, body: { errors: [{ pointer: '/expiresAt', message: /^must be given, and at or before \S+: keys live at most 30 days here$/ }] } }, String(expiresAt))
    }
    t.match(await call('POST', collection, { name: 'K', expiresAt: '2020-01-01' }), { status: 422, body: { errors: [{ message: 'must be in the future' }] } })
    const { status, body: key } = await call('POST', collection, { name: 'K', expiresAt: day(30) })
    t.equal(status, 201)
    const item = `${collection}/${key.id}`
    for (const expiresAt of [null, day(32)]) t.match(await call('PATCH', item, { expiresAt }), { status: 422, body: { errors: [{ pointer: '/expiresAt' }] } })
    t.match(await call('PATCH', item, { expiresAt: day(1) }), { status: 200, body: { expiresAt: `${day(1)}T23:59:59.999Z` } })
    await sql`UPDATE keys SET expires_at = NULL WHERE id = ${key.id}`
    t.match(await call('PATCH', item, { name: 'Of earlier' }), { status: 200, body: { expiresAt: null } }, 'a key of before the setting stays as it is')
  })

  await t.test('an import is a key like any other; a clash says "already used" and leaves nothing', async t => {
    const { call, newProject, newKey, verify, sql } = await start({ importForms: ['uuid'] })
    const projectId = await newProject()
    const uuid = randomUUID()
    const answer = await call('POST', `/projects/${projectId}/keys`, { name: 'From CHEFS', scopes: ['submissions'], import: { secret: uuid } })
    t.match(answer, { status: 201, body: { hint: `…${uuid.slice(-4)}`, sealed: false, scopes: ['submissions'] } })
    t.notOk('secret' in answer.body)
    t.notMatch(answer.text, uuid)
    t.match((await verify(uuid)).record, { keyId: answer.body.id })
    t.equal((await verify(uuid.toUpperCase())).outcome, 'unknown', 'case counts')
    t.equal((await call('POST', `/projects/${projectId}/keys/${answer.body.id}/reveal`, { reason })).body.secret, uuid)

    const [second, third] = [randomUUID(), randomUUID()]
    const byDigest = await call('POST', `/projects/${projectId}/keys`, { name: 'D', import: { digest: digestSecret(second) } })
    t.match(byDigest, { status: 201, body: { hint: '…', sealed: true } })
    t.match((await verify(second)).record, { keyId: byDigest.body.id })
    t.match(await call('POST', `/projects/${projectId}/keys`, { name: 'D', sealed: false, import: { digest: digestSecret(third) } }), { status: 422, body: { errors: [{ pointer: '/sealed' }] } })
    const sealed = await call('POST', `/projects/${projectId}/keys`, { name: 'D', sealed: true, import: { secret: third } })
    t.match(sealed, { status: 201, body: { sealed: true } })

    const rows = async () => JSON.stringify(await sql`SELECT (SELECT count(*) FROM keys) AS keys, (SELECT count(*) FROM secrets) AS secrets, (SELECT count(*) FROM audit_events) AS audited, (SELECT count(*) FROM outbox) AS raised`)
    const elsewhere = await newProject()
    const issued = await newKey(elsewhere)
    const before = await rows()
    for (const clash of [{ secret: uuid }, { digest: digestSecret(uuid) }, { secret: second }, { digest: digestSecret(third) }, { digest: digestSecret(issued.secret) }]) {
      const refused = await call('POST', `/projects/${elsewhere}/keys`, { name: 'Clash', import: clash })
      t.match(refused, { status: 409, body: { code: 'secret_already_used', detail: 'This secret is already used.' } })
      t.notMatch(refused.text, new RegExp(`${projectId}|${answer.body.id}|${uuid}`), 'by whom is nobody\'s business')
    }
    for (const [wrong, pointer] of [
      [{ secret: generateSecret('kg') }, '/import/secret'], [{ secret: 'kg_x' }, '/import/secret'], [{ secret: 'hunter2hunter2hunter2' }, '/import/secret'], [{ secret: '' }, '/import/secret'], [{ secret: ` ${randomUUID()}` }, '/import/secret'],
      [{ digest: 'x' }, '/import/digest'], [{ digest: `${'A'.repeat(42)}B` }, '/import/digest'], [{ secret: randomUUID(), digest: digestSecret('x') }, '/import']
    ] as const) {
      const refused = await call('POST', `/projects/${elsewhere}/keys`, { name: 'K', import: wrong })
      t.match(refused, { status: 422, body: { errors: [{ pointer }] } }, JSON.stringify(wrong))
      if ('secret' in wrong && wrong.secret.length > 4) t.notMatch(refused.text, wrong.secret, 'the secret is not repeated')
    }
    t.match((await call('POST', `/projects/${elsewhere}/keys`, { name: '', scopes: ['no'], import: { secret: 'x' } })).body.errors.length, 3, 'all faults at once')
    t.match(await call('PATCH', issued.at, { import: { secret: randomUUID() } }), { status: 400 }, 'only at creation')
    t.equal(await rows(), before, 'nothing half-done remains')

    const contested = randomUUID()
    const answers = await Promise.all(Array.from({ length: 20 }, async (_, i) => await call('POST', `/projects/${elsewhere}/keys`, { name: `K${i}`, import: i % 2 === 0 ? { secret: contested } : { digest: digestSecret(contested) } })))
    t.same([count(answers, 201), count(answers, 409)], [1, 19], '20 at once: one key')
    t.equal((await sql`SELECT id FROM keys WHERE name LIKE 'K%' AND project_id = ${elsewhere} AND name <> 'Key'`).length, 1)

    const rotated = await call('POST', `/projects/${projectId}/keys/${answer.body.id}/rotate`)
    t.match(rotated.body.secret, /^kg_/, 'its next secret is one of ours')
    t.equal((await verify(uuid)).outcome, 'unknown')
    t.match(await main.call('POST', `/projects/${await main.newProject()}/keys`, { name: 'K', import: { secret: uuid } }), { status: 422, body: { errors: [{ pointer: '/import/secret', message: /KEYGATE_IMPORT_FORMS/ }] } }, 'no form is enabled by default')
    t.match(await main.call('POST', `/projects/${await main.newProject()}/keys`, { name: 'K', import: { digest: digestSecret(uuid) } }), { status: 422, body: { errors: [{ pointer: '/import/digest' }] } })
  })

  await t.test('K21 logging: only of what the key may call, judged as it would be after the change', async t => {
    const projectId = await newProject()
    await call('POST', `/projects/${projectId}/roles`, { name: 'R', scopes: ['exports'] })
    const create = async (body: object) => await call('POST', `/projects/${projectId}/keys`, { name: 'K', ...body })
    t.match(await create({ logging: { all: 'forever' } }), { status: 422, body: { errors: [{ pointer: '/logging/all', message: /allowedForAll/ }] } })
    t.match(await create({ scopes: ['submissions'], logging: { scopes: { exports: 'forever' } } }), { status: 422, body: { errors: [{ pointer: '/logging/scopes/exports' }] } })
    t.match(await create({ logging: { scopes: { 'a~/b': 'forever' } } }), { status: 422, body: { errors: [{ pointer: '/logging/scopes/a~0~1b' }] } })
    t.match(await create({ allowedForAll: true, logging: { scopes: { files: 'forever' } } }), { status: 422, body: { errors: [{ pointer: '/logging/scopes/files' }] } }, 'allowed for all does not mean opt-in scopes')
    for (const until of ['2020-01-01', 'never', 'Forever', '', '2027-02-30', '10000-01-01']) t.match(await create({ allowedForAll: true, logging: { all: until } }), { status: 422, body: { errors: [{ pointer: '/logging/all' }] } }, until)

    const key = await newKey(projectId, { scopes: ['submissions', 'files'], role: 'R', logging: { scopes: { submissions: '2090-01-31', exports: 'forever' } } })
    const logging = { all: null, scopes: { submissions: '2090-01-31T23:59:59.999Z', exports: 'forever' } }
    t.strictSame(key.logging.scopes, { exports: 'forever', submissions: '2090-01-31T23:59:59.999Z' }, 'a bare date is the end of that day')
    t.same((await verify(key.secret)).record.logging, logging)
    t.ok(Compile(VerificationOutcome).Check(await verify(key.secret)), 'the shape of the contract')
    t.match(await call('PATCH', key.at, { logging: { all: 'forever' } }), { status: 422, body: { errors: [{ pointer: '/logging/all' }] } })
    for (const [body, pointer] of [[{ scopes: ['files'] }, '/scopes'], [{ role: null }, '/role']] as const) {
      t.match(await call('PATCH', key.at, body), { status: 422, body: { errors: [{ pointer, message: /end that in the same request with "logging"/ }] } }, JSON.stringify(body))
    }
    t.match((await call('GET', key.at)).body, { version: 1, logging }, 'nothing was changed')
    t.match(await call('PATCH', key.at, { description: 'x' }), { status: 200, body: { logging } }, 'other fields are not concerned')
    t.match((await call('PATCH', key.at, { scopes: ['files'], logging: { scopes: { submissions: null } } })).body, { scopes: ['files'], logging: { all: null, scopes: { exports: 'forever' } } }, 'ended in the same request')
    t.match((await call('PATCH', key.at, { role: null, scopes: ['exports'] })).body, { role: null, logging: { scopes: { exports: 'forever' } } }, 'what the role gave the key now has itself')
    t.match((await call('PATCH', key.at, { allowedForAll: true, scopes: [], logging: { all: '2091-01-01T00:00:00Z' } })).body, { logging: { all: '2091-01-01T00:00:00.000Z', scopes: { exports: 'forever' } } })
    t.match(await call('PATCH', key.at, { allowedForAll: false }), { status: 422, body: { errors: [{ pointer: '/allowedForAll' }] } })
    t.match((await verify(key.secret)).record.logging, { all: '2091-01-01T00:00:00.000Z' })
    const { body: shown } = await call('GET', key.at)
    t.match(await call('PATCH', key.at, { logging: shown.logging }), { status: 200, body: { logging: shown.logging } }, 'what was answered can be sent back')

    await sql`UPDATE keys SET logged_for_all_until = now() - interval '1 second' WHERE id = ${key.id}`
    await sql`UPDATE key_logging SET until = now() - interval '1 second' WHERE key_id = ${key.id}`
    t.same((await call('GET', key.at)).body.logging, { all: null, scopes: {} }, 'what has ended is not shown')
    t.same((await verify(key.secret)).record.logging, { all: null, scopes: {} })
    t.match(await call('PATCH', key.at, { allowedForAll: false }), { status: 200 }, 'and stands in nobody\'s way')
    const details = await sql`SELECT details FROM audit_events WHERE key_id = ${key.id} ORDER BY id`
    t.match(details[0], { details: { role: 'R', logging } }, 'the trail tells it as the answers do')
    await call('DELETE', key.at)
    t.same(await sql`SELECT * FROM key_logging WHERE key_id = ${key.id}`, [])
  })

  await t.test('K19, K20 allowedForAll and back; no scope at all', async t => {
    const key = await newKey(await newProject(), { scopes: ['submissions', 'files'] })
    await call('PATCH', key.at, { allowedForAll: true })
    t.match((await verify(key.secret)).record, { allowedForAll: true, scopes: ['files', 'submissions'] })
    await call('PATCH', key.at, { allowedForAll: false })
    t.match((await verify(key.secret)).record, { allowedForAll: false, scopes: ['files', 'submissions'] }, 'the stored list counts again')
    await call('PATCH', key.at, { scopes: [] })
    t.strictSame((await verify(key.secret)).record.scopes, [])
  })

  await t.test('K11 a deleted project takes its keys, roles and ciphertexts with it, for good; requests that are on their way end well', async t => {
    const projectId = await newProject()
    const role = (await call('POST', `/projects/${projectId}/roles`, { name: 'R', scopes: ['exports'] })).body
    const key = await newKey(projectId, { role: 'R', allowedForAll: true, logging: { all: 'forever', scopes: { exports: 'forever' } } })
    await call('POST', `${key.at}/rotate`, { gracePeriodSeconds: 600 })
    const { body: { secret } } = await call('POST', `${key.at}/rotate`, { gracePeriodSeconds: 600 })
    const [deleted, ...late] = await Promise.all([
      call('DELETE', `/projects/${projectId}`), call('POST', `${key.at}/rotate`), call('PATCH', key.at, { role: 'R', scopes: ['submissions'] }), call('POST', `${key.at}/reveal`, { reason }),
      call('POST', `/projects/${projectId}/keys`, { name: 'late', role: 'R' }), call('PATCH', `/projects/${projectId}/roles/${role.id}`, { scopes: ['exports', 'submissions'] }), call('POST', `/projects/${projectId}/roles`, { name: 'S' })
    ])
    t.equal(deleted.status, 204)
    for (const answer of late) t.ok([200, 201, 404].includes(answer.status), answer.text)
    for (const known of [key.secret, secret, ...late.map(answer => answer.body.secret).filter(Boolean)]) t.equal((await verify(known)).outcome, 'unknown')
    for (const table of ['secrets', 'key_scopes', 'key_logging', 'allowed_hosts', 'policies', 'roles', 'role_scopes']) t.equal((await sql`SELECT * FROM ${sql(table)} WHERE project_id = ${projectId}`).length, 0, table)
    t.ok((await sql`SELECT status, role_id FROM keys WHERE project_id = ${projectId}`).every(row => row['status'] === 'deleted' && row['role_id'] === null))
    for (const path of [`/projects/${projectId}/roles`, `/projects/${projectId}/roles/${role.id}`, key.at]) t.equal((await call('GET', path)).status, 404, path)
  })

  await t.test('K12 only create, rotate and reveal answer a secret', async t => {
    const key = await newKey(await newProject())
    const answers = [
      await call('GET', key.at), await call('GET', `/projects/${key.projectId}/keys`), await call('PATCH', key.at, { name: 'x' }), await call('POST', `${key.at}/disable`), await call('POST', `${key.at}/enable`),
      await call('POST', `${key.at}/rotate`, { gracePeriodSeconds: 60 }).then(async () => await call('PATCH', `${key.at}/rotate`, { gracePeriodSeconds: 60 })), await call('POST', `${key.at}/rotate/finish`), await call('POST', `${key.at}/revoke`)
    ]
    for (const { status, text } of answers) {
      t.equal(status, 200)
      t.notMatch(text, /"secret"|ciphertext|digest|kg_[0-9A-Za-z]/)
    }
  })

  await t.test('last use: of key and secret, in steps of a minute, off the request\'s path', async t => {
    const { app, call, newProject, newKey, verify, sql, url } = await start()
    const key = await newKey(await newProject())
    const used = async () => (await sql`SELECT k.last_used_at AS key, s.last_used_at AS secret, s.state, k.version::int FROM keys k JOIN secrets s ON s.key_id = k.id WHERE k.id = ${key.id} ORDER BY s.state`)
    const lastUse = createLastUse({ database: app.parts.database, log: app.app.log, intervalMs: 3_600_000 })
    const at = Date.now()
    const note = async (secret: string) => { lastUse.note((await verify(secret)).record, at); await lastUse.flush() }
    await note(key.secret)
    const [first] = await used()
    t.match(first, { key: Date, secret: Date, version: 1 }, 'no change: the version stays')
    t.equal((await call('GET', key.at)).body.lastUsedAt, (first?.['key'] as Date).toISOString())
    await note(key.secret)
    t.same((await used())[0], first, 'not again within a minute')
    await sql`UPDATE secrets SET last_used_at = last_used_at - interval '61 seconds'`
    await note(key.secret)
    t.not(String((await used())[0]?.['secret']), String(new Date((first?.['secret'] as Date).getTime() - 61_000)), 'the secret again')
    t.same((await used())[0]?.['key'], first?.['key'], 'the key not yet')

    const { body: rotated } = await call('POST', `${key.at}/rotate`, { gracePeriodSeconds: 600 })
    t.type(rotated.rotation.oldSecretLastUsedAt, 'string', 'the old secret keeps its own')
    t.match(await used(), [{ state: 'current', secret: null }, { state: 'retiring', secret: Date }])

    // somebody is changing the row: nobody waits for anybody
    await sql`UPDATE keys SET last_used_at = NULL`
    const held = postgres(url, { max: 1, onnotice: () => {} })
    t.teardown(async () => { await held.end({ timeout: 1 }) })
    await held`BEGIN`
    await held`UPDATE keys SET name = 'held'`
    await note(rotated.secret)
    await held`ROLLBACK`
    t.same((await used()).map(row => [row['key'], row['secret'] !== null]), [[null, true], [null, true]], 'what is held is left out')

    await sql`REVOKE UPDATE ON secrets FROM keygate`
    await sql`UPDATE secrets SET last_used_at = NULL`
    await note(rotated.secret)
    t.equal((await used())[0]?.['secret'], null, 'a failure is nobody else\'s')
    await sql`GRANT UPDATE ON secrets TO keygate`
    lastUse.note((await verify(rotated.secret)).record, at)
    await lastUse.close()
    t.match((await used())[0], { key: Date, secret: Date }, 'what was noted is written at the end')
    await sql`UPDATE secrets SET last_used_at = NULL`
    await note(rotated.secret)
    t.equal((await used())[0]?.['secret'], null, 'and nothing after that')
  })

  await t.test('a secret under an old pepper is found, and moves to the current one as it is used', async t => {
    const before = await start()
    const projectId = await before.newProject()
    const key = await before.newKey(projectId)
    await before.app.app.close()
    const peppers = { current: { id: '2', value: 'a second pepper of 32 characters or more' }, previous: [before.config.peppers.current] }
    const after = await start({ peppers, importForms: ['uuid'] }, before.url)
    t.match((await after.verify(key.secret)).record, { keyId: key.id })
    t.match(await after.call('POST', `/projects/${projectId}/keys`, { name: 'K', import: { digest: digestSecret(key.secret) } }), { status: 409, body: { code: 'secret_already_used' } }, 'also under an old pepper it is used')
    await after.app.app.close()
    t.match(await after.sql`SELECT pepper_id, digest FROM secrets`, [{ pepper_id: '2', digest: createPeppers(peppers).current(digestSecret(key.secret)).digest }])
  })
})

test('lists: filters, orders and pages', async t => {
  const house = await startHouse(t)
  const url = await house.database()
  const sql = postgres(url.replace('keygate@', 'postgres@'), { max: 1, onnotice: () => {} })
  t.teardown(async () => { await sql.end({ timeout: 1 }) })
  const config = configFor(t, url, house.redis.url)
  const app = await startApp(t, config)
  await redisIsReady(app)
  const { call } = app
  const projectId = (await call('POST', '/projects', { name: 'P' })).body.id as string
  await call('POST', `/projects/${projectId}/roles`, { name: 'Book_keeping', scopes: ['exports'] })
  const keys: Array<[string, object]> = [
    ['apple', { scopes: ['submissions'], expiresAt: '2090-01-03' }],
    ['banana', { scopes: ['exports'], expiresAt: '2090-01-01' }],
    ['cherry', { role: 'Book_keeping' }],
    ['date', { allowedForAll: true, expiresAt: '2090-01-02' }],
    ['elder 100%', { scopes: ['files'], description: 'with_underscore \\ and more' }],
    ['gone', { scopes: ['submissions'], expiresAt: '2090-01-01' }]
  ]
  const ids: Record<string, string> = {}
  for (const [name, body] of keys) ids[name] = (await call('POST', `/projects/${projectId}/keys`, { name, ...body })).body.id
  await call('DELETE', `/projects/${projectId}/keys/${ids['gone']}`)
  await sql`UPDATE keys SET last_used_at = '2026-01-01' WHERE name = 'cherry'`
  await sql`UPDATE keys SET last_used_at = '2026-01-02' WHERE name IN ('apple', 'date')`

  const walk = async (query: string, limit = 1) => {
    const names: string[] = []
    for (let cursor: string | null = ''; cursor !== null;) {
      const page: Answer = await call('GET', `/projects/${projectId}/keys?limit=${limit}${query}${cursor === '' ? '' : `&cursor=${cursor}`}`)
      if (page.status !== 200) throw new Error(page.text)
      names.push(...page.body.data.map((key: { name: string }) => key.name))
      cursor = page.body.nextCursor
    }
    return names
  }
  const byId = (...names: string[]) => names.sort((a, b) => (ids[a] ?? '') < (ids[b] ?? '') ? -1 : 1)

  await t.test('what has no value comes last in both directions, and pages of any size meet', async t => {
    for (const limit of [1, 2, 3, 4, 100]) {
      const nulls = byId('cherry', 'elder 100%')
      t.same(await walk('&sort=expiresAt', limit), ['banana', 'date', 'apple', ...nulls], `expiresAt by ${limit}`)
      t.same(await walk('&sort=-expiresAt', limit), ['apple', 'date', 'banana', ...nulls.toReversed()], `-expiresAt by ${limit}`)
      const unused = byId('banana', 'elder 100%')
      t.same(await walk('&sort=lastUsedAt', limit), ['cherry', ...byId('apple', 'date'), ...unused], `lastUsedAt by ${limit}`)
      t.same(await walk('&sort=-lastUsedAt', limit), [...byId('apple', 'date').toReversed(), 'cherry', ...unused.toReversed()], `-lastUsedAt by ${limit}`)
      t.same(await walk('&sort=-name', limit), ['elder 100%', 'date', 'cherry', 'banana', 'apple'])
      t.same(await walk('&sort=createdAt', limit), ['apple', 'banana', 'cherry', 'date', 'elder 100%'])
    }
    const { body } = await call('GET', `/projects/${projectId}/keys?limit=4&sort=expiresAt`)
    for (const sort of ['-expiresAt', 'lastUsedAt', 'name']) t.match(await call('GET', `/projects/${projectId}/keys?sort=${sort}&cursor=${body.nextCursor}`), { status: 400, body: { code: 'invalid_cursor' } })
    const made = (value: string, sort: string) => Buffer.from(JSON.stringify([sort, value, ids['apple']])).toString('base64url')
    t.equal((await call('GET', `/projects/${projectId}/keys?sort=name&cursor=${made('', 'name')}`)).status, 400, 'a name is never missing')
  })

  await t.test('scope, role, status and search narrow it down, also together', async t => {
    t.same(await walk('&sort=name&scope=exports'), ['banana', 'cherry', 'date'], 'its own, by its role, or allowed for all')
    t.same(await walk('&sort=name&scope=submissions'), ['apple', 'date'])
    t.same(await walk('&sort=name&scope=files'), ['elder 100%'], 'allowed for all does not mean opt-in scopes')
    t.same(await walk('&scope=nonsense'), [])
    t.same(await walk('&role=Book_keeping'), ['cherry'])
    t.same(await walk('&role=Book%25'), [])
    t.same(await walk('&role=nobody'), [])
    t.same(await walk('&scope=exports&status=active&search=an&sort=name'), [])
    t.same(await walk('&scope=exports&search=ana&sort=expiresAt'), ['banana'])
    for (const [search, found] of [['ANA', ['banana']], ['Ch', ['cherry']], ['an', []], ['0%', []], ['00%', ['elder 100%']], ['%', []], ['_', []], ['___', []], ['h_u', ['elder 100%']], ['\\', []], [' \\ ', ['elder 100%']], ['gon', []], ['%%%', []]] as const) {
      t.same(await walk(`&search=${encodeURIComponent(search)}`), found, search)
    }
  })

  await t.test('every order and every search has its index', async t => {
    await sql`INSERT INTO keys (project_id, id, name, status, allowed_for_all, created_by, created_at, expires_at, last_used_at)
      SELECT ${projectId}, 'key_' || lpad(i::text, 22, '0'), 'many ' || md5(i::text), 'active', false, 'test', now() - i * interval '1 minute',
        CASE WHEN i % 2 = 0 THEN now() + i * interval '1 minute' END, CASE WHEN i % 3 = 0 THEN now() - i * interval '1 minute' END FROM generate_series(1, 20000) i`
    await sql`VACUUM ANALYZE keys`
    await app.app.close()
    await othersAreGone()
    await sql`SELECT pg_stat_reset()`

    const next = await startApp(t, config)
    const after = (value: string) => Buffer.from(JSON.stringify(['-expiresAt', value, 'key_0000000000000000000009'])).toString('base64url')
    for (const query of ['sort=name', 'sort=-name', 'sort=createdAt', 'sort=-createdAt', 'sort=expiresAt', 'sort=-expiresAt', 'sort=lastUsedAt', 'sort=-lastUsedAt', 'search=4f2a1', 'search=ap',
      `sort=-expiresAt&cursor=${after('2090-01-02T23:59:59.999Z')}`, `sort=-expiresAt&cursor=${after('')}`]) {
      t.equal((await next.call('GET', `/projects/${projectId}/keys?${query}`)).status, 200, query)
    }
    await next.app.close()
    await othersAreGone() // a connection tells what it has read when it ends
    const used = Object.fromEntries((await sql`SELECT indexrelname, idx_scan::int FROM pg_stat_user_indexes WHERE relname = 'keys'`).map(row => [row['indexrelname'], row['idx_scan']]))
    for (const index of ['keys_by_name', 'keys_by_age', 'keys_by_expiry', 'keys_by_use', 'keys_search', 'keys_by_name_prefix']) t.ok(used[index] > 0, index)
    const [read] = await sql`SELECT seq_scan::int, idx_tup_fetch::int FROM pg_stat_user_tables WHERE relname = 'keys'`
    t.equal(read?.['seq_scan'], 0, 'none reads the whole table')
    t.ok(read?.['idx_tup_fetch'] < 2000, `nor all 20000 keys of the project, but ${read?.['idx_tup_fetch']}`)
  })

  async function othersAreGone (): Promise<void> {
    for (let left = 1; left > 0;) [{ left }] = await sql`SELECT count(*)::int AS left FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()` as unknown as [{ left: number }]
  }
})
