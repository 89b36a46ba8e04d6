import { digestSecret, generateSecret } from '@keygate/api-key'
import { ConfigError } from '@keygate/service-kit'
import { test } from 'tap'
import { peopleAdd } from '../src/cli/people-add.ts'
import { readConfig } from '../src/config.ts'
import { acceptPerson } from '../src/people/accept-person.ts'
import { canonicalEmail } from '../src/people/email.ts'
import { networkOf } from '../src/people/network.ts'
import { createTurns } from '../src/people/turns.ts'
import { configFor, redisIsReady, startApp, startHouse, tokens, type TestApp } from './helper.ts'
import { follow, newPerson, onHost, ownPage, password, send, tablesOf, tokenIn } from './people-helper.ts'

/** tap's type for an expected error knows none of our members. */
const like = (wanted: object): Error => wanted as Error

const wrong = 'wrong horse battery'

test('rules of who signs in from where', async t => {
  t.equal(canonicalEmail('J\u030Can@x.org'), '\u01f0an@x.org', 'a letter that is composed in lower case alone')
  const unstable: string[] = []
  for (let code = 0; code <= 0x10ffff; code++) {
    if (code >= 0xd800 && code <= 0xdfff) continue
    for (const text of [String.fromCodePoint(code), `a${String.fromCodePoint(code)}\u0301`, ` J${String.fromCodePoint(code)}`]) {
      const once = canonicalEmail(text)
      if (canonicalEmail(once) !== once) unstable.push(code.toString(16))
    }
  }
  t.same(unstable, [], 'what comes out comes out of itself, whatever the character')

  const email = `a${'😀'.repeat(60)}@x.org`
  t.same(acceptPerson({ email }), { email, name: `a${'😀'.repeat(60)}` }, 'no character is cut in two')
  t.equal([...acceptPerson({ email: `a${'😀'.repeat(110)}@x.org` }).name].length, 100)

  for (const address of ['::ffff:7f00:1', '::FFFF:127.0.0.1', '0:0:0:0:0:ffff:7f00:1', '0000::ffff:7f00:0001']) t.equal(networkOf(address), '127.0.0.1', address)
  t.equal(networkOf('::ffff:cb00:7107'), '203.0.113.7')
  t.equal(networkOf('::1:ffff:7f00:1'), '0:0:0:0::/64', 'not a mapped one')

  const env = { DATABASE_URL: 'postgres://u@h/d', REDIS_URL: 'redis://h', KEYGATE_APIS: 'apis.yaml', KEYGATE_PEPPER: 'p'.repeat(32) }
  t.equal(readConfig({ ...env, KEYGATE_OPERATOR_EMAIL: ' J\u030Can@X.org' }).config.operatorEmail, '\u01f0an@x.org')
  for (const address of ['a\u200bb@x.org', `${'a'.repeat(250)}@x.org`, 'nobody']) {
    t.throws(() => readConfig({ ...env, KEYGATE_OPERATOR_EMAIL: address }), like({ name: ConfigError.name, message: /KEYGATE_OPERATOR_EMAIL/ }), `the first start says so: ${JSON.stringify(address)}`)
  }
})

test('GX-11 one network takes a part of the places for passwords, not all', async t => {
  const inTurn = createTurns({ atOnce: 1, waiting: 3, each: 2 })
  let open = () => {}
  const gate = new Promise<void>(resolve => { open = resolve })
  const work = async () => { await gate }
  const busy = like({ problem: { status: 503, code: 'busy' } })
  const begun = [inTurn('a', work), inTurn('a', work)]
  await t.rejects(inTurn('a', work), busy, 'its part is taken')
  begun.push(inTurn('b', work), inTurn('c', work))
  await t.rejects(inTurn('d', work), busy, 'all places are taken')
  open()
  await Promise.all(begun)
  await Promise.all([inTurn('a', work), inTurn('a', work)])
  await t.rejects(inTurn('a', async () => { throw new Error('x') }), like({ message: 'x' }))
  await Promise.all([inTurn('a', work), inTurn('a', work)])
})

test('signing in', async t => {
  const house = await startHouse(t)
  const url = await house.database()
  // A busy machine is not a silent Redis: alone, each process would allow as many guesses.
  const config = configFor(t, url, house.redis.url, { trustProxy: ['127.0.0.1'], redisTimeoutMs: 20_000 })
  const app = await startApp(t, config)
  await redisIsReady(app)
  const sql = tablesOf(t, url)
  const operator = await follow(app, app.printed)
  const from = (address: string) => ({ host: 'keys.example.org', 'sec-fetch-site': 'same-origin', 'x-forwarded-proto': 'https', 'x-forwarded-for': address })
  const signIn = async (email: string, given: string, headers: Record<string, string>) => await send(app, 'POST', '/sign-in', { body: { email, password: given }, headers })
  const audited = async (action: string, address: string) => (await sql`SELECT actor_type, details FROM audit_events WHERE action = ${action} AND details->>'address' = ${address} ORDER BY id`).map(({ actor_type: type, details }) => ({ type, details }))

  await t.test('a link that does not work is in the audit trail, without its token', async t => {
    const used = tokenIn(app.printed)
    for (const token of [used, 'x']) t.match(await send(app, 'POST', '/set-password', { body: { token, password }, headers: from('192.0.2.1') }), { status: 422, body: { code: 'link_not_valid' } })
    const event = { type: 'nobody', details: { address: '192.0.2.1', account: null, by: 'link' } }
    t.strictSame(await audited('sign-in.failed', '192.0.2.1'), [event, event])
    const token = tokenIn(await onHost(app, config, peopleAdd, { email: 'twice@example.org' }))
    const both = await Promise.all([1, 2].map(async () => await send(app, 'POST', '/set-password', { body: { token, password }, headers: from('192.0.2.2') })))
    t.same(both.map(({ status }) => status).sort(), [200, 422])
    t.equal((await audited('sign-in.failed', '192.0.2.2')).length, 1, 'of two at once the one that came too late')
    t.notMatch(JSON.stringify(await sql`SELECT details FROM audit_events`), new RegExp(`${used}|${token}`))
  })

  await t.test('an address whose letters are composed in lower case alone signs in, and is one account', async t => {
    const ada = await newPerson(app, config, { email: 'J\u030Can@x.org' })
    for (const spelling of ['J\u030Can@x.org', 'j\u030can@X.ORG', '\u01f0an@x.org']) t.match(await signIn(spelling, password, from('192.0.2.3')), { status: 200, body: { id: ada.id } })
    t.match(await onHost(app, config, peopleAdd, { email: 'J\u030Can@x.org' }), /\S/)
    t.equal((await sql`SELECT 1 FROM users WHERE email LIKE '%an@x.org'`).length, 1)
  })

  await t.test('a fault of the database is no wrong password', async t => {
    const ada = await newPerson(app, config, { email: 'fault@example.org' })
    await sql`ALTER TABLE passwords RENAME TO elsewhere`
    for (let i = 0; i < 6; i++) t.match(await signIn(ada.email, password, from('192.0.2.4')), { status: 500 })
    await sql`ALTER TABLE elsewhere RENAME TO passwords`
    for (let i = 0; i < 5; i++) t.match(await signIn(ada.email, wrong, from('192.0.2.4')), { status: 401 })
    t.match(await signIn(ada.email, password, from('192.0.2.4')), { status: 429 })
  })

  await t.test('GX-11 who has guessed too often takes no place of others, and looks nothing up', async t => {
    for (let i = 0; i < 20; i++) t.match(await signIn(`nobody${i}@example.org`, wrong, from('192.0.2.5')), { status: 401 })
    await sql`ALTER TABLE one_time_links RENAME TO elsewhere`
    const many = await Promise.all(Array.from({ length: 60 }, async () => await send(app, 'POST', '/set-password', { body: { token: 'x', password }, headers: from('192.0.2.5') })))
    await sql`ALTER TABLE elsewhere RENAME TO one_time_links`
    t.same(new Set(many.map(({ status }) => status)), new Set([429]), 'and none of them "busy"')
  })

  await t.test('a confirmation whose session has ended meanwhile confirms nothing', async t => {
    const ada = await newPerson(app, config, { email: 'ended@example.org' })
    // The session is held, so that the confirmation waits for it and finds it gone.
    const held = sql.begin(async tx => {
      await tx`DELETE FROM sessions WHERE digest = ${digestSecret(ada.cookie.split('=')[1] ?? '')}`
      const answer = ada.call('POST', '/me/confirm', { password })
      for (;;) {
        const [waiting] = await house.admin`SELECT count(*)::int AS n FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ILIKE 'update "sessions"%'`
        if (waiting?.['n'] > 0) break
      }
      return { answer }
    })
    t.match(await (await held).answer, { status: 401, body: { code: 'unauthenticated' } })
  })

  await t.test('a password that was replaced while it was compared begins no session, and that is in the audit trail', async t => {
    const ada = await newPerson(app, config, { email: 'replaced@example.org' })
    const held = sql.begin(async tx => {
      await tx`UPDATE passwords SET hash = hash || 'x' WHERE user_id = ${ada.id}`
      const answer = signIn(ada.email, password, from('192.0.2.6'))
      for (;;) {
        const [waiting] = await house.admin`SELECT count(*)::int AS n FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ILIKE '%passwords%for share%'`
        if (waiting?.['n'] > 0) break
      }
      return { answer }
    })
    t.match(await (await held).answer, { status: 401, body: { code: 'sign_in_failed' } })
    t.strictSame(await audited('sign-in.failed', '192.0.2.6'), [{ type: 'nobody', details: { address: '192.0.2.6', account: ada.email, by: 'password' } }])
  })

  await t.test('GX-25 where people come over https, or by another name, no session begins in clear, whatever a proxy says or leaves out', async t => {
    const status = async (publicUrl: string | undefined, headers: Record<string, string>) => {
      const one = await startApp(t, { ...config, publicUrl })
      const answer = await send(one, 'POST', '/sign-in', { body: { email: operator.email, password }, headers })
      return [answer.status, answer.cookies[0]?.name]
    }
    for (const publicUrl of ['https://keys.example.org', 'https://localhost', 'http://keys.example.org']) {
      for (const host of ['127.0.0.1:8082', 'localhost']) t.strictSame(await status(publicUrl, { ...ownPage, host }), [403, undefined], `${publicUrl}, Host ${host}`)
    }
    t.strictSame(await status('https://keys.example.org', from('192.0.2.7')), [200, '__Host-keygate_session'])
    t.strictSame(await status('https://keys.example.org', { host: '127.0.0.1:8082', origin: 'https://keys.example.org', 'x-forwarded-proto': 'https' }), [200, '__Host-keygate_session'], 'a proxy of ours that keeps its own Host')
    t.strictSame(await status('http://localhost:8082', ownPage), [200, 'keygate_session'])
  })
})

test('each start that prints a link is in the audit trail', async t => {
  const house = await startHouse(t)
  const url = await house.database()
  const config = configFor(t, url, house.redis.url)
  const sql = tablesOf(t, url)
  await startApp(t, config)
  const second = await startApp(t, config)
  const events = await sql`SELECT actor_type, action, details->>'email' AS email, details::text AS details FROM audit_events ORDER BY id`
  const link = { actor_type: 'host', action: 'person.link', email: 'operator@localhost' }
  t.match(events.filter(({ action }) => action === 'person.link'), [link, link])
  t.notMatch(JSON.stringify(events), tokenIn(second.printed))
  await follow(second, second.printed)
  await startApp(t, config)
  t.equal((await sql`SELECT 1 FROM audit_events WHERE action = 'person.link'`).length, 2, 'settled: no link, no event')
})

test('GX-22 no repeated request gives a secret that is sealed, replaced or no longer valid', async t => {
  const house = await startHouse(t)
  const url = await house.database()
  const app = await startApp(t, configFor(t, url, house.redis.url))
  await redisIsReady(app)
  const sql = tablesOf(t, url)
  const make = async (at: string, name: string) => await app.call('POST', at, { name }, tokens.all, { 'idempotency-key': name.replaceAll(' ', '-') })
  const newProject = async () => `/projects/${(await app.call('POST', '/projects', { name: 'P' })).body.id as string}`
  const keys = `${await newProject()}/keys`
  for (const [name, change] of Object.entries<(at: string) => Promise<{ status: number }>>({
    sealed: async at => await app.call('PATCH', at, { sealed: true }),
    rotated: async at => await app.call('POST', `${at}/rotate`, { gracePeriodSeconds: 0 }),
    'rotated with a grace': async at => await app.call('POST', `${at}/rotate`, { gracePeriodSeconds: 60 }),
    revoked: async at => await app.call('POST', `${at}/revoke`, {}),
    deleted: async at => await app.call('DELETE', at)
  })) {
    const { body: { secret, ...others } } = await make(keys, name)
    const bystander = await make(keys, `beside ${name}`)
    const changed = await change(`${keys}/${others.id as string}`)
    t.ok(changed.status < 300, `${name}: ${changed.status}`)
    t.strictSame((await make(keys, name)).body, { ...others, secretOmitted: true }, name)
    t.equal((await make(keys, `beside ${name}`)).text, bystander.text, 'another key keeps its own')
    t.match(await sql`SELECT secret_ciphertext, encryption_key_id FROM idempotency_keys WHERE key_id = ${others.id}`, [{ secret_ciphertext: null, encryption_key_id: null }], 'nothing is left to decrypt')
  }
  const project = await newProject()
  const { body: { id } } = await make(`${project}/keys`, 'in a project')
  t.match(await app.call('DELETE', project, undefined, tokens.all, { 'if-match': '*' }), { status: 204 })
  t.match(await sql`SELECT secret_ciphertext FROM idempotency_keys WHERE key_id = ${id}`, [{ secret_ciphertext: null }], 'nor of a deleted project')
})

test('GX-11 what gateways ask is limited per address for those who may not, and never for a gateway', async t => {
  const house = await startHouse(t)
  const config = configFor(t, await house.database(), house.redis.url, { requestsLimit: 5 })
  const app = await startApp(t, config)
  await redisIsReady(app)
  const ask = async ({ app }: TestApp, remoteAddress: string, token: string, method: 'GET' | 'POST' = 'GET') => await app.inject({
    method,
    url: method === 'GET' ? '/v1/changes' : '/v1/verifications',
    remoteAddress,
    headers: { authorization: `Bearer ${token}` },
    ...method === 'POST' && { payload: { digest: 'x'.repeat(43) } }
  })
  const statuses = async (address: string, token: () => string) => {
    const answers = []
    for (let i = 0; i < 8; i++) answers.push(await ask(app, address, token(), i % 2 === 0 ? 'GET' : 'POST'))
    t.match(answers.at(-1), { statusCode: 429, headers: { 'retry-after': /^[1-9]\d?$/ } })
    return answers.map(({ statusCode }) => statusCode)
  }
  t.strictSame(await statuses('192.0.2.1', () => generateSecret('kgs')), [...Array<number>(5).fill(401), ...Array<number>(3).fill(429)], 'tokens that there are not')
  t.strictSame(await statuses('192.0.2.2', () => tokens.reader), [...Array<number>(5).fill(403), ...Array<number>(3).fill(429)], 'a token that may not')
  for (const address of ['192.0.2.1', '192.0.2.2', '192.0.2.3']) {
    for (let i = 0; i < 8; i++) {
      const answer = await ask(app, address, tokens.verify)
      t.equal(answer.statusCode, 200, 'a gateway at the same address')
      t.notHas(answer.headers, 'ratelimit')
    }
  }
  t.equal((await app.app.inject({ url: '/v1/projects', remoteAddress: '192.0.2.1', headers: { authorization: `Bearer ${tokens.all}` } })).statusCode, 429, 'they count together with the address\'s other requests')
})
