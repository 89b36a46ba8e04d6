import { test } from 'tap'
import { configFor, startApp, startHouse, tokens } from './helper.ts'

const own = "default-src 'none';script-src 'self';style-src 'self';img-src 'self';connect-src 'self';font-src 'none';base-uri 'none';form-action 'self';frame-ancestors 'none'"
const onEveryAnswer = {
  'content-security-policy': own,
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer'
}

test('GX-26 what browsers must not do with our answers', async t => {
  const house = await startHouse(t)
  const { app } = await startApp(t, configFor(t, await house.database(), house.redis.url, { trustProxy: ['127.0.0.1'] }))
  const ask = async (url: string, { method = 'GET', headers = {}, ...more }: { method?: string, headers?: Record<string, string>, payload?: string } = {}) =>
    await app.inject({ method: method as 'GET', url, headers: { origin: 'https://evil.example', ...headers }, ...more })
  const authorization = `Bearer ${tokens.all}`

  const answers = {
    'an answer': await ask('/v1/projects', { headers: { authorization } }),
    'a refusal': await ask('/v1/projects'),
    'a fault of the body': await ask('/v1/projects', { method: 'POST', headers: { authorization, 'content-type': 'application/json' }, payload: '{' }),
    'a 404': await ask('/v1/nothing'),
    'a 404 beside': await ask('/nothing'),
    'a probe': await ask('/readyz'),
    'the API document': await ask('/openapi.json')
  }
  t.strictSame(Object.values(answers).map(answer => answer.statusCode), [200, 401, 400, 404, 404, 200, 200])
  for (const [name, { headers }] of Object.entries(answers)) {
    t.match(headers, onEveryAnswer, name)
    t.notOk(Object.keys(headers).some(header => header.startsWith('access-control-')), `${name}: no CORS`)
    t.notHas(headers, 'strict-transport-security', `${name}: this was http`)
  }
  for (const name of ['an answer', 'a refusal', 'a fault of the body', 'a 404'] as const) t.equal(answers[name].headers['cache-control'], 'no-store', name)

  await t.test('the page of the API document is as strict but for inline styles and data images', async t => {
    for (const url of ['/docs', '/docs/', '/docs/static/swagger-ui.css']) {
      const { statusCode, headers } = await ask(url)
      t.equal(statusCode, 200)
      t.match(headers, { ...onEveryAnswer, 'content-security-policy': own.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'").replace("img-src 'self'", "img-src 'self' data:") }, url)
    }
  })

  await t.test('a preflight is answered like any address that is not there', async t => {
    const preflight = await ask('/v1/projects', { method: 'OPTIONS', headers: { 'access-control-request-method': 'POST' } })
    t.equal(preflight.statusCode, 404)
    t.notOk(Object.keys(preflight.headers).some(header => header.startsWith('access-control-')))
  })

  await t.test('over https browsers are told to stay there, also behind a proxy that is believed', async t => {
    const { headers } = await ask('/v1/projects', { headers: { 'x-forwarded-proto': 'https' } })
    t.equal(headers['strict-transport-security'], 'max-age=63072000')
  })
})
