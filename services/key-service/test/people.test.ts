import { digestSecret, generateSecret } from '@keygate/api-key'
import { hash } from '@node-rs/argon2'
import { test } from 'tap'
import { peopleAdd } from '../src/cli/people-add.ts'
import { peopleConfirm } from '../src/cli/people-confirm.ts'
import { peopleLink } from '../src/cli/people-link.ts'
import { tokensCreate } from '../src/cli/tokens-create.ts'
import { parseEmail } from '../src/people/email.ts'
import { networkOf } from '../src/people/network.ts'
import { canonicalPassword, faultOfPassword } from '../src/people/password-text.ts'
import { publicUrlOf } from '../src/people/public-url.ts'
import { createTurns } from '../src/people/turns.ts'
import { wantsConfirmation } from '../src/plugins/authentication.ts'
import { configFor, redisIsReady, startApp, startHouse, tokensFile, type TestApp } from './helper.ts'
import { cookieOf, follow, newPerson, onHost, ownPage, password, personWith, send, tablesOf, tokenIn, type Person } from './people-helper.ts'

/** tap's type for an expected error knows none of our members. */
const like = (wanted: object): Error => wanted as Error

const unknownUser = 'usr_0000000000000000000000'
const unknownProject = '11111111-2222-4333-8444-555555555555'

test('rules of people', async t => {
  t.same(parseEmail('  Ada@Example.ORG '), { email: 'ada@example.org' })
  t.same(parseEmail('ada@b\u0308cher.example'), { email: 'ada@b\u0308cher.example'.normalize('NFC') }, 'one spelling of one address')
  for (const wrong of ['', 'ada', '@example.org', 'ada@', 'a da@example.org', 'a@b@c', 'ada@exa\u0000mple.org', 'ada@exam\u200bple.org', `${'a'.repeat(250)}@b.cc`]) t.match(parseEmail(wrong), { fault: /must/ }, JSON.stringify(wrong))

  t.equal(faultOfPassword('x'.repeat(12)), undefined, 'no rules of composition')
  t.equal(faultOfPassword('😀'.repeat(200)), undefined, 'a character is a code point')
  for (const wrong of ['x'.repeat(11), '😀'.repeat(11), 'x'.repeat(201), `${'x'.repeat(12)}\n`, `${'x'.repeat(12)}\ud800`]) t.match(faultOfPassword(wrong), /must/, JSON.stringify(wrong))
  t.equal(canonicalPassword('u\u0308 \u00a0Ü'), 'ü  Ü', 'other spellings of the same text, and upper case kept')

  t.equal(networkOf('203.0.113.7'), '203.0.113.7')
  t.equal(networkOf('::ffff:203.0.113.7'), '203.0.113.7')
  t.equal(networkOf('2001:db8:1:2:3:4:5:6'), '2001:db8:1:2::/64')
  t.equal(networkOf('2001:DB8:1:2::6'), '2001:db8:1:2::/64')
  t.equal(networkOf('2001:db8::6'), '2001:db8:0:0::/64')
  t.equal(networkOf('::1'), '0:0:0:0::/64')
  t.equal(networkOf('fe80::1%eth0'), 'fe80:0:0:0::/64')
  t.equal(networkOf('64:ff9b::203.0.113.7'), '64:ff9b:0:0::/64')

  t.equal(publicUrlOf({ publicUrl: 'https://keys.example.org', host: '127.0.0.1', port: 1 }), 'https://keys.example.org')
  t.equal(publicUrlOf({ publicUrl: undefined, host: '0.0.0.0', port: 8082 }), 'http://localhost:8082')
  t.equal(publicUrlOf({ publicUrl: undefined, host: '::1', port: 8082 }), 'http://[::1]:8082')

  const inTurn = createTurns({ atOnce: 2, waiting: 2, each: 4 })
  let open = () => {}
  const gate = new Promise<void>(resolve => { open = resolve })
  let atWork = 0
  let most = 0
  const work = async () => { most = Math.max(most, ++atWork); await gate; atWork-- }
  const first = [inTurn('a', work), inTurn('a', work), inTurn('a', work), inTurn('a', work)]
  await t.rejects(inTurn('a', work), like({ problem: { status: 503, code: 'busy' }, headers: { 'retry-after': '2' } }), 'a fifth one finds no room')
  open()
  await Promise.all(first)
  t.equal(most, 2)
  await t.rejects(inTurn('a', async () => { throw new Error('x') }), like({ message: 'x' }))
  await Promise.all([inTurn('a', work), inTurn('a', work)])
  t.equal(most, 2, 'who failed gave the place back')
})

test('people over HTTP', async t => {
  const house = await startHouse(t)
  const url = await house.database()
  // A busy machine is not a silent Redis: alone, each process would allow as many guesses.
  const config = configFor(t, url, house.redis.url, { trustProxy: ['127.0.0.1'], redisTimeoutMs: 20_000 })
  const app = await startApp(t, config)
  await redisIsReady(app)
  const sql = tablesOf(t, url)
  const operator = await follow(app, app.printed)
  let count = 0
  const person = async (options: object = {}) => await newPerson(app, config, { email: `person${++count}@example.org`, ...options })
  const newProject = async () => (await app.call('POST', '/projects', { name: 'P' })).body.id as string
  const owned = async () => {
    const projectId = await newProject()
    return { projectId, at: `/projects/${projectId}`, owner: await person({ project: projectId, role: 'owner' }) }
  }
  const audited = async (action: string) => await sql`SELECT actor_type, actor_id, project_id, details FROM audit_events WHERE action = ${action} ORDER BY id`
  /** As if it came over https through our proxy, from an address of its own. */
  const from = (address: string) => ({ host: 'keys.example.org', 'sec-fetch-site': 'same-origin', 'x-forwarded-proto': 'https', 'x-forwarded-for': address })
  const signIn = async (email: string, given: string, headers: Record<string, string> = ownPage) => await send(app, 'POST', '/sign-in', { body: { email, password: given }, headers })

  await t.test('the first start prints a link, once used it makes an operator; a later start prints none', async t => {
    t.match(app.printed, /operator@localhost/)
    t.match(app.printed, /http:\/\/127\.0\.0\.1:0\/set-password#token=/)
    t.match((await operator.call('GET', '/me')).body, { kind: 'person', email: 'operator@localhost', isOperator: true, projects: [] })
    t.equal((await startApp(t, config)).printed, '')
    t.match(await send(app, 'POST', '/set-password', { body: { token: tokenIn(app.printed), password } }), { status: 422, body: { code: 'link_not_valid' } }, 'a link works once')
  })

  await t.test('sign-in: the cookie, me, sign-out; a wrong password, an unknown person and one without a password are the same to the byte', async t => {
    const ada = await person({ name: 'Ada' })
    const answer = await signIn(` ${ada.email.toUpperCase()}`, password)
    t.match(answer, { status: 200, headers: { 'cache-control': 'no-store' }, body: { kind: 'person', id: ada.id, name: 'Ada', email: ada.email } })
    const cookie = String(answer.headers['set-cookie'])
    t.match(cookie, /^keygate_session=[\w-]{43}; Path=\/; HttpOnly; SameSite=Strict$/, 'on this machine in clear: no Secure, and not the __Host- name')
    const [stored] = await sql`SELECT count(*)::int AS n FROM sessions WHERE digest = ${digestSecret(cookie.slice(16, 59))}`
    t.equal(stored?.['n'], 1, 'only the digest is kept')
    const unclaimed = `person${++count}@example.org`
    await onHost(app, config, peopleAdd, { email: unclaimed })
    const failed: string[] = []
    for (const [email, given] of [[ada.email, 'wrong horse battery'], ['nobody@example.org', password], [unclaimed, password], ['no address', password], ['a\ud800@b', password], [ada.email, '']] as const) {
      const refused = await signIn(email, given, { ...ownPage, 'x-request-id': 'same' })
      t.match(refused, { status: 401, body: { code: 'sign_in_failed' } })
      t.equal(refused.headers['set-cookie'], undefined)
      failed.push(refused.text)
    }
    t.equal(new Set(failed).size, 1)
    t.match((await audited('sign-in.failed')).filter(({ details }) => details.by === 'password').map(({ details }) => details.account), [ada.email, null, unclaimed, null, null, ada.email], 'what is no account is not written down: it may be a password')
    const one = await personWith(app, cookieOf(answer))
    t.match(await one.call('POST', '/sign-out'), { status: 204, headers: { 'set-cookie': /^keygate_session=; .*Expires=Thu, 01 Jan 1970/ } })
    t.match(await one.call('GET', '/me'), { status: 401 })
    t.match(await signIn(ada.email, password.normalize('NFD').replace(' ', '\u00a0')), { status: 200 }, 'another spelling of the same password')
    t.match(await signIn('a\u0000@b', password), { status: 422, body: { errors: [{ pointer: '/email' }] } })
    t.match(await send(app, 'POST', '/sign-in', { body: { email: ada.email } }), { status: 400, body: { errors: [{ pointer: '/password' }] } })
  })

  await t.test('GX-25 a new id at every sign-in; the old one is never valid again; sign-out ends it on the server', async t => {
    const ada = await person()
    const planted = `keygate_session=${'A'.repeat(43)}`
    const before = await signIn(ada.email, password, { ...ownPage, cookie: planted })
    t.not(cookieOf(before), planted)
    t.match(await send(app, 'GET', '/me', { headers: { ...ownPage, cookie: planted } }), { status: 401 }, 'a planted id is not taken over')
    const after = await signIn(ada.email, password, { ...ownPage, cookie: cookieOf(before) })
    t.not(cookieOf(after), cookieOf(before))
    t.match(await send(app, 'GET', '/me', { headers: { ...ownPage, cookie: cookieOf(before) } }), { status: 401 }, 'the cookie from before the sign-in')
    const link = await onHost(app, config, peopleLink, { email: (await person()).email })
    const other = await signIn(ada.email, password)
    await send(app, 'POST', '/set-password', { body: { token: tokenIn(link), password }, headers: { ...ownPage, cookie: cookieOf(other) } })
    t.match(await send(app, 'GET', '/me', { headers: { ...ownPage, cookie: cookieOf(other) } }), { status: 401 }, 'somebody else signs in on the same browser')
    const one = await personWith(app, cookieOf(after))
    await one.call('POST', '/sign-out')
    t.match(await one.call('GET', '/me'), { status: 401 }, 'after sign-out')
    t.match(await one.call('POST', '/sign-out'), { status: 401 })
    t.match(await ada.call('GET', '/me'), { status: 200 }, 'other sessions go on')
    for (const wrong of ['keygate_session=', 'keygate_session=x', `keygate_session=${'%00'.repeat(43)}`, `__Host-${ada.cookie}`, ada.cookie.replace('_', '')]) {
      t.match(await send(app, 'GET', '/me', { headers: { ...ownPage, cookie: wrong } }), { status: 401 }, wrong)
    }
  })

  await t.test('GX-25 a session ends when it is not used, and after its time in any case, by the database\'s clock', async t => {
    const ada = await person()
    const digest = digestSecret(ada.cookie.split('=')[1] ?? '')
    const age = async (column: 'last_seen_at' | 'created_at', ms: number) => { await sql`UPDATE sessions SET ${sql(column)} = now() - ${ms}::float8 * interval '1 millisecond' WHERE digest = ${digest}` }
    const seen = async () => (await sql`SELECT last_seen_at > now() - interval '10 seconds' AS recent FROM sessions WHERE digest = ${digest}`)[0]?.['recent']
    await age('last_seen_at', 50_000)
    t.match(await ada.call('GET', '/me'), { status: 200 })
    t.equal(await seen(), false, 'within a minute nothing is written')
    await age('last_seen_at', config.sessionIdleMs - 5000)
    t.match(await ada.call('GET', '/me'), { status: 200 })
    t.equal(await seen(), true, 'use prolongs it')
    await age('created_at', config.sessionMs - 60_000)
    t.match(await ada.call('GET', '/me'), { status: 200 })
    await age('created_at', config.sessionMs)
    t.match(await ada.call('GET', '/me'), { status: 401 }, 'its time is over, however recently it was used')
    await age('created_at', 0)
    await age('last_seen_at', config.sessionIdleMs)
    t.match(await ada.call('GET', '/me'), { status: 401 }, 'not used for too long')
    await signIn(ada.email, password)
    t.equal((await sql`SELECT 1 FROM sessions WHERE digest = ${digest}`).length, 0, 'a sign-in removes what is over')
  })

  await t.test('GX-25 over https the cookie is __Host- and Secure; in clear over a network there is no sign-in', async t => {
    const ada = await person()
    const https = await signIn(ada.email, password, from('203.0.113.1'))
    t.match(String(https.headers['set-cookie']), /^__Host-keygate_session=[\w-]{43}; Path=\/; HttpOnly; Secure; SameSite=Strict$/)
    const cookie = cookieOf(https)
    t.match(await send(app, 'GET', '/me', { headers: { ...from('203.0.113.1'), cookie } }), { status: 200 })
    t.match(await send(app, 'GET', '/me', { headers: { host: 'keys.example.org', cookie } }), { status: 401 }, 'the same in clear')
    const out = await send(app, 'POST', '/sign-out', { headers: { ...from('203.0.113.1'), cookie } })
    t.match(String(out.headers['set-cookie']), /^__Host-keygate_session=; .*Secure/)

    const refused = { status: 403, body: { code: 'insecure_transport', detail: /KEYGATE_TRUST_PROXY/ } }
    t.match(await signIn(ada.email, password, { ...ownPage, host: 'keys.example.org' }), refused, 'a proxy on this machine that is not known as one')
    t.match(await signIn(ada.email, password, { ...ownPage, 'x-forwarded-proto': 'http', 'x-forwarded-for': '203.0.113.1' }), refused, 'our proxy got it in clear')
    t.match(await signIn(ada.email, password, { ...ownPage, 'x-real-ip': '203.0.113.1' }), refused, 'signs of a proxy')
    for (const host of ['localhost.evil.example', '127.0.0.1.evil.example', '0.0.0.0', '[::2]', '127.evil']) t.match(await signIn(ada.email, password, { ...ownPage, host }), refused, host)
    for (const host of ['LOCALHOST:8082', '127.0.0.1:1', '[::1]', '127.1.2.3']) t.match(await signIn(ada.email, password, { ...ownPage, host }), { status: 200 }, host)

    const untrusting = await startApp(t, { ...config, trustProxy: [] })
    t.match(await send(untrusting, 'POST', '/sign-in', { body: { email: ada.email, password }, headers: from('203.0.113.1') }), refused, 'X-Forwarded-Proto of somebody who is not trusted')
    const remote = await untrusting.app.inject({ method: 'POST', url: '/v1/sign-in', remoteAddress: '203.0.113.9', headers: ownPage, payload: { email: ada.email, password } })
    t.match({ status: remote.statusCode, body: remote.json() }, refused, 'a name of ours from another machine')
  })

  await t.test('GX-25 the same through a real socket on this machine', async t => {
    const real = await startApp(t, config)
    const base = await real.app.listen({ host: '127.0.0.1', port: 0 })
    const ada = await person()
    const answer = await fetch(`${base}/v1/sign-in`, { method: 'POST', headers: { 'content-type': 'application/json', origin: base }, body: JSON.stringify({ email: ada.email, password }) })
    t.equal(answer.status, 200)
    const [cookie = ''] = answer.headers.getSetCookie()
    t.match(cookie, /^keygate_session=/)
    t.equal((await fetch(`${base}/v1/me`, { headers: { cookie: cookie.split(';')[0] ?? '' } })).status, 200)
  })

  await t.test('GX-23 another site cannot act with a session', async t => {
    const { at, owner } = await owned()
    const edit = async (headers: Record<string, string>, more: Record<string, string> = {}) => await send(app, 'PATCH', at, { body: { name: 'changed' }, headers: { host: 'localhost', cookie: owner.cookie, 'if-match': '*', ...headers, ...more } })
    for (const [what, headers] of Object.entries<Record<string, string>>({
      'from another site': { 'sec-fetch-site': 'cross-site' },
      'from another host of the same domain': { 'sec-fetch-site': 'same-site', origin: 'http://localhost' },
      'an unknown word': { 'sec-fetch-site': 'same-origin, cross-site' },
      'says nothing of where it is from': {},
      'from another origin': { origin: 'https://evil.example' },
      'from the same host over https': { origin: 'https://localhost' },
      'from another port': { origin: 'http://localhost:8080' },
      'from nowhere': { origin: 'null' }
    })) {
      t.match(await edit(headers), { status: 403, body: { code: 'cross_site' } }, what)
      t.match(await send(app, 'POST', '/sign-in', { body: { email: owner.email, password }, headers: { host: 'localhost', ...headers } }), { status: 403, body: { code: 'cross_site' } }, `sign-in ${what}`)
      t.match(await send(app, 'POST', '/set-password', { body: { token: 'x', password }, headers: { host: 'localhost', ...headers } }), { status: 403, body: { code: 'cross_site' } })
    }
    t.equal((await owner.call('GET', at)).body.version, 1, 'nothing was changed')
    t.match(await send(app, 'GET', at, { headers: { host: 'localhost', cookie: owner.cookie, 'sec-fetch-site': 'cross-site' } }), { status: 200 }, 'reading is no act, and SameSite keeps the cookie from it')
    for (const headers of [{ 'sec-fetch-site': 'same-origin' }, { 'sec-fetch-site': 'none' }, { origin: 'http://localhost' }]) t.match(await edit(headers as Record<string, string>), { status: 200 }, JSON.stringify(headers))
    const form = await app.app.inject({ method: 'PATCH', url: `/v1${at}`, headers: { ...ownPage, cookie: owner.cookie, 'content-type': 'text/plain' }, payload: '{"name":"form"}' })
    t.equal(form.statusCode, 415)
    const bearer = await app.app.inject({ method: 'PATCH', url: `/v1${at}`, headers: { authorization: `Bearer ${await onHost(app, config, tokensCreate, { name: 'x', permissions: 'projects:update' }).then(text => text.trim())}`, 'sec-fetch-site': 'cross-site', 'if-match': '*', cookie: owner.cookie }, payload: { name: 'by a token' } })
    t.equal(bearer.statusCode, 200, 'a service token does not come by itself')
  })

  await t.test('a link sets a password once, ends all sessions, and gets old', async t => {
    const ada = await person()
    const text = await onHost(app, config, peopleLink, { email: ada.email })
    t.match(await ada.call('GET', '/me'), { status: 401 }, 'the link ended the sessions')
    const token = tokenIn(text)
    for (const [given, wrong] of [[password.slice(0, 11), /12 to 200/], [`${password}\u0007`, /control/]] as const) {
      t.match(await send(app, 'POST', '/set-password', { body: { token, password: given } }), { status: 422, body: { errors: [{ pointer: '/password', message: wrong }] } }, 'which does not use up the link')
    }
    t.match(await signIn(ada.email, password), { status: 200 }, 'until then the old one works')
    const both = await Promise.all([0, 1].map(async () => await send(app, 'POST', '/set-password', { body: { token, password: 'another horse battery' } })))
    t.same(both.map(({ status }) => status).sort(), [200, 422], 'of two at once one gets it')
    t.match(await signIn(ada.email, password), { status: 401 })
    t.match(await signIn(ada.email, 'another horse battery'), { status: 200 })
    const earlier = tokenIn(await onHost(app, config, peopleLink, { email: ada.email }))
    const later = tokenIn(await onHost(app, config, peopleLink, { email: ada.email }))
    t.match(await send(app, 'POST', '/set-password', { body: { token: earlier, password } }), { status: 422 }, 'a newer link ends it')
    await sql`UPDATE one_time_links SET expires_at = now() WHERE digest = ${digestSecret(later)}`
    t.match(await send(app, 'POST', '/set-password', { body: { token: later, password } }), { status: 422 }, 'a day has passed')
    t.equal((await sql`SELECT 1 FROM one_time_links WHERE digest = ${later} OR digest = ${earlier}`).length, 0, 'what opens it is not stored')
    await t.rejects(onHost(app, config, peopleLink, { email: 'nobody@example.org' }), like({ message: /no account/ }))
  })

  await t.test('a password is changed with the old one; all sessions end but a new one', async t => {
    const ada = await person()
    const elsewhere = await personWith(app, cookieOf(await signIn(ada.email, password)))
    t.match(await ada.call('POST', '/me/password', { currentPassword: 'wrong horse battery', newPassword: 'a newer horse battery' }), { status: 403, body: { code: 'wrong_password', errors: [{ pointer: '/currentPassword' }] } })
    t.match(await ada.call('POST', '/me/password', { currentPassword: password, newPassword: 'short' }), { status: 422, body: { errors: [{ pointer: '/newPassword' }] } })
    const changed = await send(app, 'POST', '/me/password', { body: { currentPassword: password, newPassword: 'a newer horse battery' }, headers: { ...ownPage, cookie: ada.cookie } })
    t.match(changed, { status: 200, body: { id: ada.id } })
    for (const old of [ada, elsewhere]) t.match(await old.call('GET', '/me'), { status: 401 })
    t.match(await (await personWith(app, cookieOf(changed))).call('GET', '/me'), { status: 200 })
    t.match(await signIn(ada.email, password), { status: 401 })
    t.match(await signIn(ada.email, 'a newer horse battery'), { status: 200 })
  })

  await t.test('a confirmation renews what a reveal wants; tokens need none', async t => {
    const ada = await person()
    const caller = { kind: 'person', authenticatedMs: 0, nowMs: 600_000 } as const
    t.equal(wantsConfirmation(caller as never), false)
    t.equal(wantsConfirmation({ ...caller, nowMs: 600_001 } as never), true)
    t.equal(wantsConfirmation({ kind: 'token' } as never), false)
    await sql`UPDATE sessions SET authenticated_at = now() - interval '1 hour' WHERE user_id = ${ada.id}`
    t.match(await ada.call('POST', '/me/confirm', { password: 'wrong horse battery' }), { status: 403, body: { code: 'wrong_password' } })
    const recent = async () => (await sql`SELECT authenticated_at > now() - interval '1 minute' AS recent FROM sessions WHERE user_id = ${ada.id}`)[0]?.['recent']
    t.equal(await recent(), false)
    t.match(await ada.call('POST', '/me/confirm', { password }), { status: 204 })
    t.equal(await recent(), true)
    t.match(await app.call('POST', '/me/confirm', { password }), { status: 403, body: { code: 'not_a_person' } })
    t.match(await app.call('POST', '/sign-out'), { status: 403 })
    t.match((await app.call('GET', '/me')).body, { kind: 'token', email: null, isOperator: false, projects: [] })
  })

  await t.test('a digest of another cost is made anew when its password is at hand', async t => {
    const ada = await person()
    await sql`UPDATE passwords SET hash = ${await hash(password, { memoryCost: 8192, timeCost: 1, parallelism: 1 })} WHERE user_id = ${ada.id}`
    t.match(await signIn(ada.email, password), { status: 200 })
    const [stored] = await sql`SELECT hash FROM passwords WHERE user_id = ${ada.id}`
    t.match(stored?.['hash'], /^\$argon2id\$v=19\$m=19456,t=2,p=1\$/)
    t.match(await signIn(ada.email, password), { status: 200 })
  })

  await t.test('guessing: five wrong per account and address, twenty per address, shared by all processes; the right one still works from elsewhere', async t => {
    const ada = await person()
    const other = await startApp(t, config)
    await redisIsReady(other)
    const guess = async (which: TestApp, email: string, address: string, given = 'wrong horse battery') => await send(which, 'POST', '/sign-in', { body: { email, password: given }, headers: from(address) })
    const statuses = async (attempts: Array<Promise<{ status: number }>>) => (await Promise.all(attempts)).map(({ status }) => status).sort()
    t.same(await statuses(Array.from({ length: 12 }, async (_, i) => await guess(i % 2 === 0 ? app : other, ada.email, '198.51.100.1'))), [...Array<number>(5).fill(401), ...Array<number>(7).fill(429)], 'at once, on two processes')
    const limited = await guess(app, ada.email, '198.51.100.1', password)
    t.match(limited, { status: 429, body: { code: 'too_many_attempts' } }, 'the right one too, or it would tell')
    const wait = Number(limited.headers['retry-after'])
    t.ok(wait > 800 && wait <= 900, `Retry-After: ${wait}`)
    t.match(await guess(app, ada.email, '198.51.100.2', password), { status: 200 }, 'from another address')
    t.match(await guess(app, 'someone.else@example.org', '198.51.100.1'), { status: 401 }, 'another account from the same address')
    const told = (await audited('sign-in.limited')).filter(({ details }) => details.address === '198.51.100.1')
    t.match(told, [{ actor_type: 'nobody', details: { account: ada.email } }], 'told once, not per request')
    t.equal(told.length, 1)

    for (let i = 0; i < 6; i++) t.match(await guess(app, ada.email, '198.51.100.3', password), { status: 200 }, 'what is right is not counted')
    for (let i = 0; i < 4; i++) t.match(await guess(app, ada.email, '198.51.100.3'), { status: 401 })
    t.match(await guess(app, ada.email, '198.51.100.3', password), { status: 200 }, 'and begins anew')
    for (let i = 0; i < 5; i++) t.match(await guess(app, ada.email, '198.51.100.3'), { status: 401 })
    t.match(await guess(app, ada.email, '198.51.100.3'), { status: 429 })

    for (let i = 0; i < 20; i++) t.match(await guess(app, `nobody${i}@example.org`, '2001:db8::1'), { status: 401 })
    t.match(await guess(other, 'nobody20@example.org', '2001:db8::2'), { status: 429 }, 'the whole /64 is one address')
    t.match(await send(app, 'POST', '/set-password', { body: { token: 'x', password }, headers: from('2001:db8::3') }), { status: 429 })
    t.match(await guess(other, 'nobody20@example.org', '2001:db8:0:1::1'), { status: 401 })
  })

  await t.test('guessing at a link, a confirmation and a change of the password is limited too', async t => {
    for (let i = 0; i < 20; i++) t.match(await send(app, 'POST', '/set-password', { body: { token: `${i}`, password }, headers: from('198.51.100.20') }), { status: 422 })
    t.match(await send(app, 'POST', '/set-password', { body: { token: '20', password }, headers: from('198.51.100.20') }), { status: 429 })
    const ada = await person()
    const cookie = cookieOf(await signIn(ada.email, password, from('198.51.100.21')))
    const headers = { ...from('198.51.100.21'), cookie }
    for (let i = 0; i < 3; i++) t.match(await send(app, 'POST', '/me/confirm', { body: { password: 'wrong' }, headers }), { status: 403 })
    for (let i = 0; i < 2; i++) t.match(await send(app, 'POST', '/me/password', { body: { currentPassword: 'wrong', newPassword: password }, headers }), { status: 403 })
    t.match(await send(app, 'POST', '/me/confirm', { body: { password }, headers }), { status: 429 })
    t.match(await signIn(ada.email, password, from('198.51.100.21')), { status: 429 })
  })

  await t.test('members: an owner invites, changes and removes; each with an entry in the audit trail', async t => {
    const { projectId, at, owner } = await owned()
    const added = await owner.call('POST', `${at}/members`, { email: 'New@Example.org', name: 'New', role: 'manager' })
    t.match(added, { status: 201, headers: { 'cache-control': 'no-store' }, body: { email: 'new@example.org', name: 'New', role: 'manager', hasPassword: false, invitation: { url: /^http:\/\/127\.0\.0\.1:0\/set-password#token=[\w-]{43}$/ } } })
    const days = (Date.parse(added.body.invitation.expiresAt) - Date.now()) / 86_400_000
    t.ok(days > 6.9 && days < 7.1)
    const again = await owner.call('POST', `${at}/members/${added.body.userId}/invitation`)
    t.match(again, { status: 200, headers: { 'cache-control': 'no-store' }, body: { url: /#token=/ } })
    await t.rejects(follow(app, added.body.invitation.url), /refused/, 'a new invitation ends the one before')
    const member = await follow(app, again.body.url)
    t.match((await member.call('GET', '/me')).body, { id: added.body.userId, projects: [{ id: projectId, name: 'P', role: 'manager' }] })
    t.match(await owner.call('POST', `${at}/members/${member.id}/invitation`), { status: 409, body: { code: 'already_joined' } })
    t.match(await owner.call('POST', `${at}/members`, { email: member.email, role: 'viewer' }), { status: 409, body: { code: 'member_exists' } })
    const known = await person()
    const joined = await owner.call('POST', `${at}/members`, { email: known.email, role: 'viewer' })
    t.match(joined, { status: 201, body: { userId: known.id, hasPassword: true } })
    t.notOk('invitation' in joined.body, 'who has an account is let in without a link')
    const pages: string[] = []
    for (let cursor: string | null = ''; cursor !== null;) {
      const page = await member.call('GET', `${at}/members?limit=2${cursor === '' ? '' : `&cursor=${cursor}`}`)
      pages.push(...page.body.data.map((one: { userId: string }) => one.userId))
      cursor = page.body.nextCursor
    }
    t.same(pages, [owner.id, member.id, known.id])
    t.match(await owner.call('PATCH', `${at}/members/${known.id}`, { role: 'manager' }), { status: 200, body: { role: 'manager' } })
    t.match(await owner.call('DELETE', `${at}/members/${known.id}`), { status: 204 })
    t.match(await known.call('GET', at), { status: 404 }, 'the next request knows')
    for (const [method, path, body] of [['PATCH', '', { role: 'owner' }], ['DELETE', ''], ['POST', '/invitation']] as const) {
      for (const id of [unknownUser, known.id, 'x', '%00']) t.match(await owner.call(method, `${at}/members/${id}${path}`, body), { status: 404, body: { code: id === '%00' ? 'not_found' : 'member_not_found' } }, `${method} ${id}`)
    }
    for (const [body, pointer] of [[{ email: 'x', role: 'viewer' }, '/email'], [{ email: 'a@b', name: ' ', role: 'viewer' }, '/name'], [{ email: 'a@b', role: 'operator' }, '/role']] as const) {
      t.match(await owner.call('POST', `${at}/members`, body), { status: 422, body: { errors: [{ pointer }] } })
    }
    t.match(await owner.call('GET', `${at}/members?cursor=x`), { status: 400 })
    const trail = await sql`SELECT action FROM audit_events WHERE project_id = ${projectId} AND actor_id = ${owner.id} AND action LIKE 'member.%' ORDER BY id`
    t.same(trail.map(({ action }) => action), ['member.add', 'member.invite', 'member.add', 'member.edit', 'member.remove'])
    const everything = JSON.stringify(await sql`SELECT * FROM audit_events`)
    for (const secret of [added.body.invitation.url, again.body.url].map(tokenIn)) t.notOk(everything.includes(secret), 'no link in the trail')
  })

  await t.test('GX-16 an invitation opens nothing that others gave: who invited vouches, and for others the host must', async t => {
    const [first, second] = [await owned(), await owned()]
    const email = 'shared@example.org'
    const { body: { userId, invitation } } = await first.owner.call('POST', `${first.at}/members`, { email, name: 'Carol', role: 'viewer' })
    const notVouched = { status: 409, body: { code: 'account_not_vouched', detail: /people confirm --email/ } }
    const refusedEverywhere = async (when: string) => {
      const refused = await second.owner.call('POST', `${second.at}/members`, { email, role: 'owner' })
      t.match(refused, notVouched, `${when}: a member of another project`)
      t.notOk(/Carol|usr_|hasPassword/.test(refused.text), 'nothing of the account is told')
      t.match(await operator.call('POST', '/operators', { email }), notVouched, `${when}: operator`)
      t.match(await operator.call('POST', '/projects', { name: 'P', owner: email }), notVouched, `${when}: owner of a new project`)
    }
    await refusedEverywhere('invited')
    const third = await newProject()
    await onHost(app, config, peopleAdd, { email: first.owner.email, project: third, role: 'owner' })
    t.match(await first.owner.call('POST', `/projects/${third}/members`, { email, role: 'viewer' }), { status: 201, body: { userId, hasPassword: false } }, 'who invited builds on it')
    await t.rejects(onHost(app, config, peopleConfirm, { email }), like({ message: /people link/ }), 'the invitation is still out')
    const carol = await follow(app, invitation.url)
    await refusedEverywhere('after the invitation was used')
    await t.rejects(onHost(app, config, peopleAdd, { email, operator: true }), like({ message: /people confirm/ }))
    await t.rejects(onHost(app, config, peopleAdd, { email, project: second.projectId, role: 'viewer' }), like({ message: /people confirm/ }))
    t.match(await second.owner.call('GET', `${second.at}/members`), { body: { data: [{ userId: second.owner.id }] } }, 'nothing was changed')

    t.match(await onHost(app, config, peopleConfirm, { email: email.toUpperCase() }), /Confirmed/)
    t.match(await onHost(app, config, peopleConfirm, { email }), /already/)
    t.match(await audited('person.confirm'), [{ actor_type: 'host', details: { userId, email, vouchedBy: first.owner.id } }])
    await t.rejects(onHost(app, config, peopleConfirm, { email: 'nobody@example.org' }), like({ message: /no account/ }))
    const joined = await second.owner.call('POST', `${second.at}/members`, { email, role: 'owner' })
    t.match(joined, { status: 201, body: { userId, hasPassword: true } })
    t.notOk('invitation' in joined.body)
    t.same((await carol.call('GET', '/projects')).body.data.map((project: { id: string }) => project.id).sort(), [first.projectId, second.projectId, third].sort(), 'the list is of the own projects')
    t.match(await operator.call('POST', '/operators', { email }), { status: 201 })
    await operator.call('DELETE', `/operators/${userId}`)
  })

  await t.test('GX-16 who makes a new invitation vouches from then on; the host does with a link of its own', async t => {
    const [first, second] = [await owned(), await owned()]
    const colleague = await person({ project: first.projectId, role: 'owner' })
    await onHost(app, config, peopleAdd, { email: colleague.email, project: second.projectId, role: 'owner' })
    const email = 'invited.again@example.org'
    const { body: { userId } } = await first.owner.call('POST', `${first.at}/members`, { email, role: 'viewer' })
    t.match(await colleague.call('POST', `${second.at}/members`, { email, role: 'viewer' }), { status: 409, body: { code: 'account_not_vouched' } })
    const { body: { url: link } } = await colleague.call('POST', `${first.at}/members/${userId}/invitation`)
    t.match(await colleague.call('POST', `${second.at}/members`, { email, role: 'viewer' }), { status: 201 })
    for (const { owner, at } of [first, second]) t.match(await owner.call('POST', `${at}/members/${userId}/invitation`), { status: 409, body: { code: 'belongs_elsewhere' } })
    t.match(await onHost(app, config, peopleLink, { email }), /#token=/)
    await t.rejects(follow(app, link), /refused/)
    t.match(await operator.call('POST', '/operators', { email }), { status: 201, body: { userId } })
    await operator.call('DELETE', `/operators/${userId}`)

    const tokens = (await Promise.all(['members:write', 'members:write'].map(async permissions => await onHost(app, config, tokensCreate, { name: 'members', permissions })))).map(text => text.trim())
    const add = async (at: string, token: string | undefined) => (await app.call('POST', `${at}/members`, { email: 'of.a.token@example.org', role: 'viewer' }, token)).status
    t.same([await add(first.at, tokens[0]), await add(second.at, tokens[1]), await add(second.at, tokens[0])], [201, 409, 201], 'a token that rests on nobody vouches itself')
  })

  await t.test('GX-16 an invitation and a right from elsewhere that come at once: one of the two', async t => {
    const [first, second] = [await owned(), await owned()]
    for (let i = 0; i < 20; i++) {
      const email = `at.once${i}@example.org`
      await onHost(app, config, peopleAdd, { email, project: first.projectId, role: 'viewer' })
      const [{ id } = {}] = await sql`SELECT id FROM users WHERE email = ${email}`
      const [invited, added] = await Promise.all([first.owner.call('POST', `${first.at}/members/${id}/invitation`), second.owner.call('POST', `${second.at}/members`, { email, role: 'owner' })])
      t.match([[200, 409], [409, 201]].find(([one]) => one === invited.status), [invited.status, added.status], `${invited.status} ${added.status}`)
    }
  })

  await t.test('GX-25 who gives rights, or makes a token, has given the password in the last ten minutes', async t => {
    const { projectId, at, owner } = await owned()
    const member = (await owner.call('POST', `${at}/members`, { email: 'old.session@example.org', role: 'viewer' })).body.userId as string
    await sql`UPDATE sessions SET authenticated_at = now() - interval '3 hours' WHERE user_id IN (${owner.id}, ${operator.id})`
    const acts: Array<[Person, string, string, object?]> = [
      [owner, 'POST', '/service-tokens', { name: 'x', permissions: ['keys:reveal'], projectId }],
      [owner, 'POST', `${at}/members`, { email: 'puppet@example.org', role: 'owner' }],
      [owner, 'PATCH', `${at}/members/${member}`, { role: 'owner' }],
      [owner, 'POST', `${at}/members/${member}/invitation`],
      [operator, 'POST', '/operators', { email: owner.email }]
    ]
    for (const [who, method, path, body] of acts) t.match(await who.call(method, path, body), { status: 403, body: { code: 'confirmation_required' } }, `${method} ${path}`)
    for (const who of [owner, operator]) t.match(await who.call('POST', '/me/confirm', { password }), { status: 204 })
    for (const [who, method, path, body] of acts) t.ok((await who.call(method, path, body)).status < 300, `confirmed: ${method} ${path}`)
    await operator.call('DELETE', `/operators/${owner.id}`)
  })

  await t.test('the last owner and the last operator are people who can sign in', async t => {
    const { at, owner } = await owned()
    const invited = (await owner.call('POST', `${at}/members`, { email: 'not.here.yet@example.org', role: 'owner' })).body.userId as string
    t.match(await owner.call('DELETE', `${at}/members/${owner.id}`), { status: 409, body: { code: 'last_owner', detail: /sign in/ } })
    t.match(await owner.call('PATCH', `${at}/members/${owner.id}`, { role: 'manager' }), { status: 409, body: { code: 'last_owner' } })
    t.match(await owner.call('DELETE', `${at}/members/${invited}`), { status: 204 })
    const email = 'operator.not.here.yet@example.org'
    await onHost(app, config, peopleAdd, { email, operator: true })
    t.match(await operator.call('DELETE', `/operators/${operator.id}`), { status: 409, body: { code: 'last_operator', detail: /sign in/ } })
    const [{ id } = {}] = await sql`SELECT id FROM users WHERE email = ${email}`
    t.match(await operator.call('DELETE', `/operators/${id}`), { status: 204 })
  })

  await t.test('the last owner and the last operator stay, also when two go at once', async t => {
    const { at, owner } = await owned()
    t.match(await owner.call('DELETE', `${at}/members/${owner.id}`), { status: 409, body: { code: 'last_owner' } })
    t.match(await owner.call('PATCH', `${at}/members/${owner.id}`, { role: 'viewer' }), { status: 409, body: { code: 'last_owner' } })
    const second = await person()
    await owner.call('POST', `${at}/members`, { email: second.email, role: 'owner' })
    const both = await Promise.all([owner.call('DELETE', `${at}/members/${second.id}`), second.call('DELETE', `${at}/members/${owner.id}`)])
    t.equal(both.filter(({ status }) => status === 204).length, 1, `${both.map(({ status }) => status).join()}`)
    t.equal((await app.call('GET', `${at}/members`)).body.data.length, 1)

    t.match(await operator.call('DELETE', `/operators/${operator.id}`), { status: 409, body: { code: 'last_operator' } })
    const deputy = await person()
    for (const email of ['nobody@example.org', 'a\u0000@b', '\ud800@b']) t.match(await operator.call('POST', '/operators', { email }), { status: 422, body: { errors: [{ pointer: '/email' }] } })
    t.match(await operator.call('POST', '/operators', { email: deputy.email }), { status: 201, body: { userId: deputy.id, grantedBy: 'Operator' } })
    t.match(await operator.call('POST', '/operators', { email: deputy.email }), { status: 409, body: { code: 'operator_exists' } })
    t.match((await operator.call('GET', '/operators?limit=1')).body, { data: [{ userId: operator.id }], nextCursor: String })
    t.match(await operator.call('DELETE', `/operators/${unknownUser}`), { status: 404 })
    const out = await Promise.all([operator.call('DELETE', `/operators/${deputy.id}`), deputy.call('DELETE', `/operators/${operator.id}`)])
    t.equal(out.filter(({ status }) => status === 204).length, 1, `${out.map(({ status }) => status).join()}`)
    await onHost(app, config, peopleAdd, { email: operator.email, operator: true })
    await operator.call('DELETE', `/operators/${deputy.id}`)
    t.same((await operator.call('GET', '/operators')).body.data.map(({ userId }: { userId: string }) => userId), [operator.id])
  })

  await t.test('service tokens: at most the maker\'s own permissions there; shown once; deleted', async t => {
    const { projectId, at, owner } = await owned()
    const create = async (who: Person, body: object) => await who.call('POST', '/service-tokens', { name: 'deploy', ...body })
    const made = await create(owner, { permissions: ['keys:read', 'keys:reveal', 'tokens:write'], projectId: projectId.toUpperCase(), expiresAt: '2090-01-01' })
    t.match(made, { status: 201, headers: { 'cache-control': 'no-store' }, body: { name: 'deploy', permissions: ['keys:read', 'keys:reveal', 'tokens:write'], projectId, fromFile: false, expiresAt: '2090-01-01T23:59:59.999Z', createdBy: /person/, token: /^kgs_/ } })
    const { token, ...shown } = made.body
    t.equal(shown.hint, `kgs_…${token.slice(-4)}`)
    t.same((await owner.call('GET', '/service-tokens')).body, { data: [shown], nextCursor: null }, 'an owner sees those of the own projects')
    t.ok((await operator.call('GET', '/service-tokens')).body.data.length > 3, 'an operator all')
    t.equal((await app.call('GET', `${at}/keys`, undefined, token)).status, 200)
    t.equal((await app.call('GET', '/projects', undefined, token)).status, 403)

    for (const [who, body, status, said] of [
      [owner, { permissions: ['keys:read'] }, 422, { errors: [{ pointer: '/projectId' }] }],
      [owner, { permissions: ['keys:read'], projectId: unknownProject }, 404, { code: 'project_not_found' }],
      [owner, { permissions: ['keys:read', 'keys:verify'], projectId }, 403, { code: 'cannot_grant', errors: [{ pointer: '/permissions/1' }] }],
      [owner, { permissions: ['projects:create'], projectId }, 403, { code: 'cannot_grant' }],
      [owner, { permissions: [], projectId }, 422, {}],
      [owner, { permissions: ['keys:read'], projectId, name: ' ', expiresAt: '2020-01-01' }, 422, { errors: [{ pointer: '/name' }, { pointer: '/expiresAt' }] }],
      [operator, { permissions: ['keys:verify'] }, 403, { code: 'cannot_grant', detail: /tokens create/ }],
      [operator, { permissions: ['keys:create'] }, 403, { code: 'cannot_grant' }],
      [operator, { permissions: ['keys:reveal'], projectId }, 403, { code: 'cannot_grant' }],
      [operator, { permissions: ['members:write'], projectId }, 403, { code: 'cannot_grant' }],
      [operator, { permissions: ['operators:write'], projectId }, 422, { errors: [{ pointer: '/permissions/0' }] }],
      [operator, { permissions: ['keys:read'], projectId: unknownProject }, 404, {}]
    ] as const) t.match(await create(who, body), { status, body: said }, JSON.stringify(body))

    const child = async (body: object) => await app.call('POST', '/service-tokens', { name: 'child', ...body }, token)
    t.match(await child({ permissions: ['keys:create'], projectId, expiresAt: '2089-01-01' }), { status: 403, body: { code: 'cannot_grant' } }, 'a token at most its own')
    t.match(await child({ permissions: ['keys:read'], projectId }), { status: 422, body: { errors: [{ pointer: '/expiresAt' }] } }, 'and no longer')
    t.match(await child({ permissions: ['keys:read'] }), { status: 422 }, 'and nowhere else')
    t.match(await child({ permissions: ['keys:read'], projectId, expiresAt: '2089-01-01' }), { status: 201 })
    t.equal((await app.call('GET', '/service-tokens', undefined, token)).body.data.length, 2)

    const fromFile = (await operator.call('GET', '/service-tokens')).body.data.find((one: { fromFile: boolean }) => one.fromFile)
    t.match(await operator.call('DELETE', `/service-tokens/${fromFile.id}`), { status: 409, body: { code: 'token_from_file', detail: /KEYGATE_SERVICE_TOKENS_FILE/ } })
    t.match(await owner.call('DELETE', `/service-tokens/${fromFile.id}`), { status: 404 }, 'somebody else\'s is not there')
    for (const id of ['x', '%00', 'tok_0000000000000000000000']) t.match(await owner.call('DELETE', `/service-tokens/${id}`), { status: 404 })
    t.match(await owner.call('DELETE', `/service-tokens/${shown.id}`), { status: 204 })
    t.equal((await app.call('GET', `${at}/keys`, undefined, token)).status, 401)
  })

  await t.test('a right that ends takes the service tokens with it that rest on it', async t => {
    const { projectId, at, owner } = await owned()
    const second = await person()
    await owner.call('POST', `${at}/members`, { email: second.email, role: 'owner' })
    const make = async (who: { call: Person['call'] }, permissions: string[], project?: string) => (await who.call('POST', '/service-tokens', { name: 'x', permissions, ...project !== undefined && { projectId: project } })).body.token as string
    const works = async (token: string) => (await app.call('GET', '/me', undefined, token)).status === 200
    const [reading, revealing, making] = [await make(second, ['keys:read'], projectId), await make(second, ['keys:reveal'], projectId), await make(second, ['keys:read', 'tokens:write'], projectId)]
    const made = (await app.call('POST', '/service-tokens', { name: 'child', permissions: ['tokens:write'], projectId }, making)).body.token
    await owner.call('PATCH', `${at}/members/${second.id}`, { role: 'manager' })
    t.same(await Promise.all([reading, revealing, making, made].map(works)), [true, false, false, false], 'a manager may read; what a token made rests on the same person')
    await owner.call('DELETE', `${at}/members/${second.id}`)
    t.equal(await works(reading), false)

    await operator.call('POST', '/operators', { email: second.email })
    const everywhere = await make(second, ['keys:revoke'])
    t.equal(await works(everywhere), true)
    await operator.call('DELETE', `/operators/${second.id}`)
    t.equal(await works(everywhere), false)

    const bound = await make(owner, ['keys:read'], projectId)
    t.equal((await owner.call('DELETE', at)).status, 204)
    t.equal(await works(bound), false, 'nothing is left of the project')
    t.same((await owner.call('GET', '/me')).body.projects, [])
  })

  await t.test('GX-19 a token that makes others while the rights end that it rests on leaves none behind', async t => {
    for (let round = 0; round < 5; round++) {
      const deputy = await person({ operator: true })
      const { body: { token } } = await deputy.call('POST', '/service-tokens', { name: 'x', permissions: ['operators:write', 'tokens:write'] })
      const make = async () => await app.call('POST', '/service-tokens', { name: 'child', permissions: ['operators:write'] }, token)
      const [removed] = await Promise.all([operator.call('DELETE', `/operators/${deputy.id}`), ...Array.from({ length: 19 }, make)])
      t.equal(removed.status, 204)
      t.equal((await sql`SELECT 1 FROM service_tokens WHERE maker_id = ${deputy.id}`).length, 0, `round ${round}`)
    }
  })

  await t.test('GX-19 what a token made ends with it', async t => {
    const first = (await onHost(app, config, tokensCreate, { name: 'first', permissions: 'tokens:write,keys:read' })).trim()
    const make = async (by: string) => (await app.call('POST', '/service-tokens', { name: 'made', permissions: ['tokens:write', 'keys:read'] }, by)).body as { id: string, token: string }
    const child = await make(first)
    const grandchild = await make(child.token)
    const [{ id } = {}] = await sql`SELECT id FROM service_tokens WHERE name = 'first'`
    t.match(await operator.call('DELETE', `/service-tokens/${id}`), { status: 204 })
    for (const token of [first, child.token, grandchild.token]) t.equal((await app.call('GET', '/me', undefined, token)).status, 401)
    t.match((await audited('token.delete')).at(-1), { details: { tokenId: id, endedTokens: [child.id, grandchild.id] } })
  })

  await t.test('GX-16 a refusal that undoes its transaction is written down', async t => {
    const { projectId, owner } = await owned()
    await owner.call('POST', '/service-tokens', { name: 'x', permissions: ['keys:read', 'keys:verify'], projectId })
    t.match((await audited('permission.refused')).at(-1), { actor_id: owner.id, project_id: projectId, details: { permission: 'tokens:write', permissions: ['keys:read', 'keys:verify'], code: 'cannot_grant' } })
    const manager = await person({ project: projectId, role: 'manager' })
    await onHost(app, config, peopleAdd, { email: manager.email, project: await newProject(), role: 'owner' })
    await manager.call('POST', '/service-tokens', { name: 'x', permissions: ['keys:read'], projectId })
    t.match((await audited('permission.refused')).at(-1), { actor_id: manager.id, project_id: projectId, details: { permission: 'tokens:write', code: 'forbidden' } })

    // The right is taken away between the request's coming in and its transaction: the row is held until the removal is done.
    const deputy = await person({ operator: true })
    for (const [method, path, body] of [['POST', '/operators', { email: owner.email }], ['POST', '/projects', { name: 'P', owner: owner.email }]] as const) {
      let asked: Promise<{ status: number }> | undefined
      await sql.begin(async tx => {
        await tx`DELETE FROM operators WHERE user_id = ${deputy.id}`
        asked = deputy.call(method, path, body)
        for (let waiting = 0; waiting === 0;) waiting = (await tx`SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`).length
      })
      t.match(await asked, { status: 403 })
      t.match((await audited('permission.refused')).at(-1), { actor_id: deputy.id, details: { code: 'forbidden' } }, path)
      await onHost(app, config, peopleAdd, { email: deputy.email, operator: true })
    }
    await operator.call('DELETE', `/operators/${deputy.id}`)
  })

  await t.test('a project: whose it is, its ETag, and changes on what was read alone', async t => {
    const ada = await person()
    const deputy = await person({ operator: true })
    for (const [owner, said] of [[undefined, /required/], ['nobody@example.org', /people add/], ['a\ud800@b', /people add/], [operator.email, /somebody else/], [deputy.email, /operator/]] as const) {
      t.match(await operator.call('POST', '/projects', { name: 'P', ...owner !== undefined && { owner } }), { status: 422, body: { errors: [{ pointer: '/owner', message: said }] } }, String(owner))
    }
    const created = await operator.call('POST', '/projects', { name: 'P', owner: ada.email.toUpperCase() })
    t.match(created, { status: 201, headers: { etag: '"1"' } })
    const at = `/projects/${created.body.id}`
    t.match((await ada.call('GET', `${at}/members`)).body.data, [{ userId: ada.id, role: 'owner', addedBy: 'Operator' }])
    t.match(await ada.call('GET', at), { headers: { etag: '"1"' } })
    t.match(await ada.call('PATCH', at, { name: 'x' }), { status: 428, body: { code: 'precondition_required' } })
    t.match(await ada.call('PATCH', at, { name: 'x' }, { 'if-match': '"2"' }), { status: 412, headers: { etag: '"1"' } })
    t.match(await ada.call('PATCH', at, { name: 'x' }, { 'if-match': 'W/"1"' }), { status: 412 })
    t.match(await ada.call('PATCH', at, { name: 'x' }, { 'if-match': '1' }), { status: 400 })
    t.match(await ada.call('PATCH', at, { name: 'Q' }, { 'if-match': '"7", "1"' }), { status: 200, headers: { etag: '"2"' }, body: { name: 'Q', version: 2 } })
    t.match(await ada.call('PATCH', at, { name: 'R' }, { 'if-match': '*' }), { status: 200, headers: { etag: '"3"' } })
    t.match(await ada.call('DELETE', at, undefined, { 'if-match': '"1"' }), { status: 412 })
    t.match((await ada.call('GET', at)).body, { name: 'R', version: 3 })
    t.match(await ada.call('DELETE', at), { status: 204 })

    const maker = (await onHost(app, config, tokensCreate, { name: 'maker', permissions: 'projects:create' })).trim()
    t.match(await app.call('POST', '/projects', { name: 'P', owner: ada.email }, maker), { status: 403, body: { detail: /members:write/ } })
    const { body: { id } } = await app.call('POST', '/projects', { name: 'P' }, maker)
    t.same((await operator.call('GET', `/projects/${id}/members`)).body, { data: [], nextCursor: null })
    t.match(await app.call('POST', '/projects', { name: 'P', owner: ada.email }), { status: 201 }, 'a token that may write members')
    t.same((await ada.call('GET', '/projects')).body.data.map(({ name }: { name: string }) => name), ['P'])
    await operator.call('DELETE', `/operators/${deputy.id}`)
  })

  await t.test('me says what is granted where, and by whom the rest', async t => {
    const { projectId, owner } = await owned()
    const grant = async (who: Person, permission: string) => (await who.call('GET', '/me')).body.permissions.find((one: { permission: string }) => one.permission === permission)
    t.match(await grant(owner, 'keys:reveal'), { granted: true, projectIds: [projectId] })
    t.match(await grant(owner, 'projects:create'), { granted: false, projectIds: [], grantedBy: /an operator, who makes you an operator/ })
    t.match(await grant(operator, 'keys:revoke'), { granted: true, projectIds: null })
    t.match(await grant(operator, 'keys:reveal'), { granted: false, projectIds: [], grantedBy: /an owner of the project, who makes you its owner/ })
    t.match(await grant(owner, 'keys:verify'), { granted: false, grantedBy: /host/ })
    const outsider = await person()
    t.match(await grant(outsider, 'projects:read'), { granted: true, projectIds: [] })
  })

  await t.test('on the host: people add, tokens create', async t => {
    const projectId = await newProject()
    const email = 'host@example.org'
    t.match(await onHost(app, config, peopleAdd, { email, name: 'Host', project: projectId, role: 'manager' }), /Made the account usr_/)
    await t.rejects(onHost(app, config, peopleAdd, { email, project: projectId, role: 'viewer' }), like({ message: /already/ }))
    t.match(await onHost(app, config, peopleAdd, { email, operator: true }), /Found the account/)
    t.match((await audited('person.add')).at(-1), { actor_type: 'host', actor_id: 'command-line', details: { email, isOperator: true } })
    for (const [options, said] of [[{}, /wants --email/], [{ email: 'x' }, /e-mail/], [{ email, project: projectId }, /belong together/], [{ email, project: 'x', role: 'owner' }, /UUID/], [{ email, project: unknownProject, role: 'owner' }, /no project/], [{ email, project: projectId, role: 'x' }, /must be one of/]] as const) {
      await t.rejects(onHost(app, config, peopleAdd, options), like({ message: said }), JSON.stringify(options))
    }
    const token = (await onHost(app, config, tokensCreate, { name: 'gateway', permissions: 'keys:verify, catalogue:read', project: projectId, expires: '2090-01-01' })).trim()
    t.match((await app.call('GET', '/me', undefined, token)).body, { name: 'gateway', projects: [{ id: projectId }] })
    t.equal((await app.call('POST', '/verifications', { digest: digestSecret('x') }, token)).status, 200)
    t.notOk(JSON.stringify(await audited('token.create')).includes(token))
    for (const [options, said] of [[{ name: 'x' }, /wants --permissions/], [{ permissions: 'keys:read' }, /wants --name/], [{ name: 'x', permissions: 'all' }, /there is projects:read/], [{ name: 'x', permissions: ' , ' }, /is empty/], [{ name: 'x', permissions: 'keys:read', project: unknownProject }, /no project/], [{ name: 'x', permissions: 'keys:read', expires: '2020-01-01' }, /in the future/]] as const) {
      await t.rejects(onHost(app, config, tokensCreate, options), like({ message: said }), JSON.stringify(options))
    }
    await sql`UPDATE service_tokens SET expires_at = now() WHERE name = 'gateway'`
    t.equal((await app.call('GET', '/me', undefined, token)).status, 401, 'expired by the database\'s clock')
  })

  await t.test('in no table, log or audit entry does a password, a session, a link or a token stand', async t => {
    const tables = await sql`SELECT tablename FROM pg_tables WHERE schemaname = 'public'`
    const everything = (await Promise.all(tables.map(async ({ tablename }) => JSON.stringify(await sql`SELECT * FROM ${sql(tablename)}`)))).join('')
    for (const secret of [password, operator.cookie.split('=')[1] ?? 'x', tokenIn(app.printed)]) t.notOk(everything.includes(secret))
  })
})

test('GX-19 service tokens of the file: each change is written down, and what they made ends or keeps within them', async t => {
  const house = await startHouse(t)
  const url = await house.database()
  const sql = tablesOf(t, url)
  const [kept, shrunk, gone, replaced, replacing] = Array.from({ length: 5 }, () => generateSecret('kgs')) as [string, string, string, string, string]
  const both = ['tokens:write', 'keys:read']
  const start = async (entries: object[]) => await startApp(t, configFor(t, url, house.redis.url, { serviceTokensFile: tokensFile(t, entries) }))
  const events = async () => await sql`SELECT chain, actor_type, actor_id, action, details FROM audit_events WHERE action LIKE 'token.%' AND actor_id = 'tokens-file' ORDER BY id`
  const entries = [
    { name: 'kept', token: kept, permissions: both, projectId: unknownProject.toUpperCase() },
    { name: 'shrunk', token: shrunk, permissions: both },
    { name: 'gone', token: gone, permissions: both },
    { name: 'replaced', token: replaced, permissions: both }
  ]
  const app = await start(entries)
  t.match((await events()).map(({ chain, actor_type: type, action, details }) => [chain, type, action, details.name]), entries.map(({ name }) => ['installation', 'host', 'token.create', name]))
  const make = async (by: string, permissions: string[]) => (await app.call('POST', '/service-tokens', { name: 'made', permissions }, by)).body.token as string
  const [ofGone, ofReplaced, within, beyond] = [await make(gone, ['keys:read']), await make(replaced, ['keys:read']), await make(shrunk, ['keys:read']), await make(shrunk, both)]
  const belowBeyond = await make(beyond, ['keys:read'])

  await start(entries.map(entry => ({ ...entry, permissions: both.toReversed() })))
  t.equal((await events()).length, 4, 'a start that changes nothing writes nothing')

  const later = await start([entries[0] as object, { name: 'shrunk', token: shrunk, permissions: ['keys:read'] }, { name: 'replaced', token: replacing, permissions: both }])
  t.match((await events()).slice(4).map(({ action, details }) => [action, details.name]), [['token.delete', 'gone'], ['token.delete', 'replaced'], ['token.edit', 'shrunk'], ['token.create', 'replaced']])
  const works = async (token: string) => (await later.call('GET', '/me', undefined, token)).status === 200
  t.same(await Promise.all([kept, shrunk, replacing, within].map(works)), [true, true, true, true])
  t.same(await Promise.all([gone, replaced, ofGone, ofReplaced, beyond, belowBeyond].map(works)), Array(6).fill(false))
  t.equal((await start([])).parts !== undefined && (await sql`SELECT 1 FROM service_tokens`).length, 0, 'out of the file, out of use')
  const everything = JSON.stringify(await events())
  for (const token of [kept, shrunk, gone, replaced, replacing]) t.notOk(everything.includes(token) || everything.includes(digestSecret(token)))
})

test('three key-services that start at once make one operator, and the last link works', async t => {
  const house = await startHouse(t)
  const url = await house.database()
  const config = configFor(t, url, house.redis.url, { operatorEmail: 'Root@example.org' })
  const apps = await Promise.all(Array.from({ length: 3 }, async () => await startApp(t, config)))
  const [app] = apps
  if (app === undefined) throw new Error('no app')
  const sql = tablesOf(t, url)
  t.match(await sql`SELECT email FROM users JOIN operators ON user_id = id`, [{ email: 'root@example.org' }])
  t.equal((await sql`SELECT 1 FROM operators`).length, 1)
  const answers = await Promise.all(apps.map(async ({ printed }) => await send(app, 'POST', '/set-password', { body: { token: tokenIn(printed), password } })))
  t.same(answers.map(({ status }) => status).sort(), [200, 422, 422])
  t.equal((await startApp(t, { ...config, operatorEmail: 'other@example.org' })).printed, '', 'settled: another address in the settings makes nobody an operator')
  t.equal((await sql`SELECT 1 FROM operators`).length, 1)
})

test('a later start makes a new link as long as nobody has set a password, and ends the one before', async t => {
  const house = await startHouse(t)
  const config = configFor(t, await house.database(), house.redis.url)
  const first = await startApp(t, { ...config, operatorEmail: 'tpyo@example.org' })
  const second = await startApp(t, config)
  t.match(await send(second, 'POST', '/set-password', { body: { token: tokenIn(first.printed), password } }), { status: 422 })
  t.match((await (await follow(second, second.printed)).call('GET', '/me')).body, { email: 'operator@localhost', isOperator: true })
})

test('guessing is limited by each process alone while Redis is away', async t => {
  const house = await startHouse(t)
  const config = configFor(t, await house.database(), house.redis.url, { redisTimeoutMs: 100 })
  const app = await startApp(t, config)
  const ada = await newPerson(app, config, { email: 'ada@example.org' })
  await house.redis.stop()
  const guess = async (given: string) => (await send(app, 'POST', '/sign-in', { body: { email: ada.email, password: given } })).status
  for (let i = 0; i < 5; i++) t.equal(await guess('wrong horse battery'), 401)
  t.equal(await guess('wrong horse battery'), 429)
  t.equal(await guess(password), 429)
})
