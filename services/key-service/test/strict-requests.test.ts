import { gzipSync } from 'node:zlib'
import { test } from 'tap'
import { configFor, redisIsReady, startApp, startHouse, tokens } from './helper.ts'
import { follow, ownPage, send } from './people-helper.ts'
import { routesOf } from './routes-of.ts'

test('what no route declares is refused, and every refusal names its field and the reason', async t => {
  const house = await startHouse(t)
  const app = await startApp(t, configFor(t, await house.database(), house.redis.url, { importForms: ['uuid'] }))
  await redisIsReady(app)
  const { call } = app
  const project = `/projects/${(await call('POST', '/projects', { name: 'P' })).body.id as string}`
  const newKey = async () => `${project}/keys/${(await call('POST', `${project}/keys`, { name: 'K' })).body.id as string}`

  await t.test('an unknown query parameter, at every route and for HEAD: 400 with its name', async t => {
    t.match(await call('POST', `${project}/keys?dryRun=true`, { name: 'dry' }), { status: 400, body: { code: 'invalid_request', errors: [{ pointer: '/dryRun', message: 'is not a known field; remove it' }] } })
    t.same((await call('GET', `${project}/keys?search=dry`)).body.data, [], 'nothing was made')
    const { cookie } = await follow(app, app.printed)
    const ids: Record<string, string> = { projectId: project.split('/')[2] as string, keyId: `key_${'0'.repeat(22)}` }
    const wrong: string[] = []
    const found = routesOf(app)
    for (const route of found) {
      const [method = '', pattern = ''] = route.split(' ')
      const url = `${pattern.replaceAll(/:(\w+)/g, (_all, name: string) => ids[name] ?? 'x')}?nonsense=1`
      // What is for people alone wants a session; the rest, a token that may do everything.
      const headers = /sign-|set-password|\/me\//.test(route) ? { ...ownPage, cookie } : { authorization: `Bearer ${tokens.all}` }
      const { statusCode } = await app.app.inject({ method: method as 'GET', url, headers })
      if (statusCode !== 400) wrong.push(`${route}: ${statusCode}`)
    }
    t.ok(found.length > 40)
    t.same(wrong, [])
    t.match(await app.app.inject({ method: 'HEAD', url: `/v1${project}?nonsense=1`, headers: { authorization: `Bearer ${tokens.all}` } }), { statusCode: 400 }, 'HEAD')
  })

  await t.test('a DELETE takes no fields: the empty object, as many clients send it, and nothing else', async t => {
    const key = await newKey()
    t.match(await call('DELETE', key, { nonsense: 1 }), { status: 400, body: { errors: [{ pointer: '/nonsense', message: 'is not a known field; remove it' }] } })
    t.match(await call('DELETE', key, []), { status: 400 })
    t.match(await call('GET', key), { status: 200 }, 'it is still there')
    t.match(await call('DELETE', key, {}), { status: 204 })
    t.match(await call('DELETE', await newKey()), { status: 204 })
  })

  await t.test('what does not match a pattern or a format is told in words', async t => {
    const nul = `a${String.fromCharCode(0)}`
    for (const [body, pointer, message] of [
      [{ allowedHosts: [' 1.2.3.4'] }, '/allowedHosts/0', /no spaces.*visible ASCII/],
      [{ expiresAt: ' 2090-01-01' }, '/expiresAt', /no spaces.*visible ASCII/],
      [{ scopes: [nul] }, '/scopes/0', /NUL/]
    ] as const) t.match(await call('POST', `${project}/keys`, { name: 'K', ...body }), { status: 422, body: { errors: [{ pointer, message }] } }, pointer)
    t.match(await call('GET', '/audit-events?from=yesterday'), { status: 422, body: { errors: [{ pointer: '/from', message: /^must be a date-time such as/ }] } })
    t.match(await call('GET', '/audit-events?action=%25'), { status: 422, body: { errors: [{ pointer: '/action', message: /^must be an action such as key.rotate/ }] } })
    t.match(await call('GET', '/audit-events?keyId=x'), { status: 422, body: { errors: [{ pointer: '/keyId', message: /^must be the id of a key/ }] } })
    t.notMatch((await app.app.inject('/openapi.json')).body, /x-fault/, 'the document has the patterns themselves')
  })

  await t.test('an address that begins with marks alone gives no name', async t => {
    const odd = { email: '\u0301@example.org', role: 'viewer' }
    t.match(await call('POST', `${project}/members`, odd), { status: 422, body: { code: 'invalid_request', errors: [{ pointer: '/name', message: /^is required: the address begins/ }] } })
    t.match(await call('POST', `${project}/members`, { ...odd, name: 'Odd' }), { status: 201 })
  })

  await t.test('a body that is not JSON, or is compressed: 415 says what is taken', async t => {
    const post = async (headers: Record<string, string>, payload: string | Buffer) => await app.app.inject({ method: 'POST', url: '/v1/projects', headers: { authorization: `Bearer ${tokens.all}`, ...headers }, payload })
    for (const type of ['text/plain', 'no type']) {
      const answer = await post({ 'content-type': type }, '{"name":"x"}')
      t.match(answer.json(), { status: 415, code: 'invalid_media_type', detail: /application\/json or application\/merge-patch\+json/ }, type)
    }
    const json = { 'content-type': 'application/json' }
    const packed = await post({ ...json, 'content-encoding': 'gzip' }, gzipSync('{"name":"x"}'))
    t.match(packed.json(), { status: 415, code: 'invalid_content_encoding', detail: /Content-Encoding/ })
    t.equal(packed.headers['accept-encoding'], 'identity')
    t.equal((await post({ ...json, 'content-encoding': 'GZIP, identity' }, '{"name":"x"}')).statusCode, 415, 'though it is not packed')
    t.equal((await post({ ...json, 'content-encoding': 'identity' }, '{"name":"x"}')).statusCode, 201)
  })

  await t.test('headers and values that are taken are named too', async t => {
    const key = await newKey()
    const header = { pointer: '/if-match' }
    t.match(await call('PATCH', key, { name: 'x' }, tokens.all, {}), { status: 428, body: { errors: [{ ...header, message: 'is required' }] } })
    t.match(await call('PATCH', key, { name: 'x' }, tokens.all, { 'if-match': '1' }), { status: 400, body: { code: 'invalid_precondition', errors: [header] } })
    await call('POST', `${project}/roles`, { name: 'Taken' })
    t.match(await call('POST', `${project}/roles`, { name: 'Taken' }), { status: 409, body: { code: 'role_name_taken', errors: [{ pointer: '/name', message: /another role/ }] } })
    for (const [member, value] of [['secret', '0b1d2c3e-4f50-4a61-8b72-9c83ad94be05'], ['digest', 'A'.repeat(43)]] as const) {
      const taken = { name: 'I', import: { [member]: value } }
      t.match(await call('POST', `${project}/keys`, taken), { status: 201 })
      t.match(await call('POST', `${project}/keys`, taken), { status: 409, body: { code: 'secret_already_used', errors: [{ pointer: `/import/${member}`, message: 'is already used' }] } })
    }
    t.match(await send(app, 'POST', '/sign-in', { body: {}, headers: ownPage }), { status: 400, body: { errors: [{ pointer: '/email' }, { pointer: '/password' }] } })
  })
})
