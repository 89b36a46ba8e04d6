import t from 'tap'
import { as, openCatalogueHouse } from './catalogue-house.ts'
import { basicOf, call } from './house.ts'

const house = await openCatalogueHouse(t.testdir())
t.teardown(house.stop)
const { ask, key, lastReached, project, reached } = house

const form = `/main/forms/${project.id}`

t.test('opt-in scopes, per-operation policies, public operations, HEAD follows GET', async t => {
  t.match((await ask(`${form}/files`, as(project, key.secret))).problem, { status: 403, code: 'scope_missing' })
  const files = await project.createKey({ scopes: ['files'] })
  t.equal((await ask(`${form}/files`, as(project, files.secret))).status, 200, 'all scopes, and the opt-in one by name')
  t.equal((await ask(`${form}/export`, as(project, key.secret))).headers['ratelimit-policy'], '1000;w=3600, 1;w=3600')
  t.match((await ask(`${form}/export`, as(project, key.secret))).problem, { status: 429, 'violated-policies': ['export'] })
  t.equal((await ask('/main/status')).status, 200)
  t.equal((await ask(form, [], { method: 'HEAD' })).status, 401)
  t.equal((await ask(form, as(project, key.secret), { method: 'HEAD' })).status, 200)
  t.match(lastReached(), { method: 'HEAD', url: `/inner/forms/${project.id}` })
})

t.test('otherSchemes: forward: a Bearer passes where the document offers one, and nowhere else', async t => {
  const bearer = ['authorization', 'Bearer token']
  for (const path of ['/main/people', '/main/both']) {
    const answer = await ask(path, bearer)
    t.match([answer.status, answer.headers['ratelimit-policy']], [200, '900;w=3600'], `${path}: by address`)
    t.equal(lastReached()?.headers.authorization, 'Bearer token')
    t.notOk('x-keygate-project' in (lastReached()?.headers ?? {}))
  }
  t.equal((await ask(form, bearer)).status, 401)
  t.match((await ask('/main/people', as(project, key.secret))).problem, { status: 403, code: 'operation_not_open' })
  t.equal((await ask('/main/both', as(project, key.secret))).status, 200)
  t.equal(lastReached()?.headers['x-keygate-project'], project.id)
  t.equal((await ask('/loose/people', bearer)).status, 401, 'otherSchemes: refuse')
})

t.test('unlisted: forward: it goes on as it came, with no identity, no key and a limit per address', async t => {
  const answer = await ask(`/loose/not/listed/${project.id}?a=%2Fb&c`, [...as(project, key.secret), 'x-keygate-project', project.id, 'x-own', 'kept'], { method: 'PUT', body: 'text' })
  t.match([answer.status, answer.headers['ratelimit-policy']], [200, '6;w=3600'])
  const { method, url, headers } = lastReached() ?? {}
  t.match([method, url, headers?.['x-own']], ['PUT', `/inner/not/listed/${project.id}?a=%2Fb&c`, 'kept'])
  t.strictSame(Object.keys(headers ?? {}).filter(name => name.startsWith('x-keygate') || name === 'authorization'), [], 'neither identity nor a secret of ours')
  await ask('/loose/not', ['x-api-key', key.secret])
  t.notOk('x-api-key' in (lastReached()?.headers ?? {}))
  await ask('/loose/not', basicOf('someone:password'))
  t.equal(lastReached()?.headers.authorization, basicOf('someone:password')[1], 'what is not ours is the upstream\'s')
  t.equal((await ask(`/loose/forms/${project.id}`)).status, 401, 'what is listed is not forwarded')
  for (let i = 0; i < 3; i++) await ask('/loose/not')
  const limited = await ask('/loose/not')
  t.match([limited.status, limited.problem], [429, { 'violated-policies': ['anonymous'] }])
  t.equal((await ask(`/loose/forms/${project.id}`, as(project, key.secret))).status, 200, 'keys are counted apart')
  t.match((await ask('/main/not/listed')).problem, { status: 404 })
})

t.test('unlisted: forward: no other spelling of a listed path goes on, nor another method of it, here or by way of another proxy', async t => {
  const credentials = as(project, key.secret)
  const authorize = async (method: string, url: string, headers: string[] = []): Promise<number> => (await ask('/.keygate/authorize', ['x-original-method', method, 'x-original-uri', url, ...headers])).status
  const count = reached.length
  const form = `/forms/${project.id}`
  for (const path of [`/Forms/${project.id}`, `${form}/`, `${form};x`, `/forms;x/${project.id}`, `/forms%20/${project.id}`, `/FORMS/${project.id}.json`, `${form}/files.json`, `${form}/Files`, '/status/', '/Status.xml', '/%2573tatus', '/docs/', '/DOCS', `/forms/${'0'.repeat(1001)}`]) {
    for (const method of ['GET', 'DELETE', 'POST', 'OPTIONS']) {
      for (const headers of [[], credentials]) {
        const answer = await ask(`/loose${path}`, headers, { method })
        // A value of the parameter that is no UUID, or a key where the path names another project, are judged as ever.
        t.ok([400, 401, 404].includes(answer.status), `${method} ${path}: ${answer.status}`)
        t.ok([401, 403].includes(await authorize(method, `/loose${path}`, headers)), `forward-auth: ${method} ${path}`)
      }
    }
  }
  for (const method of ['DELETE', 'PUT', 'OPTIONS']) t.equal((await ask(`/loose${form}`, credentials, { method })).status, 404, `${method} is not listed there`)
  t.equal((await ask('/%6coose/other')).status, 404, 'the prefix in another spelling')
  for (const path of [`${form}/..;/x`, `${form}/..%3b/x`, `${form}/.;/x`, `${form}/%2e%2e;x/y`, `${form}/..;`]) {
    t.match((await ask(`/loose${path}`, credentials)).problem, { status: 400, code: 'ambiguous_path' }, path)
    t.equal(await authorize('GET', `/loose${path}`, credentials), 403, `forward-auth: ${path}`)
  }
  t.equal(reached.length, count, 'the upstream saw none')
})

t.test('A18 an empty parameter names nothing: 404 with any method and key, also by way of another proxy', async t => {
  const count = reached.length
  for (const method of ['GET', 'HEAD', 'DELETE', 'POST', 'PUT', 'PATCH', 'OPTIONS']) {
    for (const path of ['/main/forms/', '/main/forms', '/main/forms//files', '/main/']) {
      const { status } = await ask(path, as(project, key.secret), { method })
      t.equal(status, path.includes('//') ? 400 : 404, `${method} ${path}`)
      const asked = await ask('/.keygate/authorize', ['x-original-method', method, 'x-original-uri', path, ...as(project, key.secret)])
      t.match([asked.status, asked.headers['x-keygate-status']], [403, String(status)], `forward-auth: ${method} ${path}`)
    }
  }
  t.equal(reached.length, count, 'the upstream saw none')
})

const preflight = ['origin', 'https://app.example.org', 'access-control-request-method', 'GET', 'access-control-request-headers', 'x-api-key,x-trace']
const origin = ['origin', 'https://app.example.org']

t.test('CORS by configuration: preflights are answered here, answers and refusals can be read by the origins named', async t => {
  const count = reached.length
  const answer = await ask(form, preflight, { method: 'OPTIONS' })
  t.match([answer.status, answer.headers], [204, {
    'access-control-allow-origin': 'https://app.example.org',
    'access-control-allow-methods': 'GET, HEAD, OPTIONS',
    'access-control-allow-headers': /(?=.*authorization)(?=.*x-api-key)(?=.*x-trace)(?=.*content-type)/,
    'access-control-max-age': '60',
    vary: /origin/i
  }])
  t.equal(reached.length, count, 'the upstream is not asked')
  const other = await ask(form, ['origin', 'https://evil.example', ...preflight.slice(2)], { method: 'OPTIONS' })
  t.match([other.status, other.headers['access-control-allow-origin'], other.headers['vary']], [204, undefined, /origin/i])
  t.equal((await ask('/main/none', preflight, { method: 'OPTIONS' })).status, 404)
  t.equal((await ask(form, [], { method: 'OPTIONS' })).status, 404, 'no preflight, and not listed')

  const readable = { 'access-control-allow-origin': 'https://app.example.org', 'access-control-expose-headers': 'RateLimit, RateLimit-Policy, Retry-After, ETag' }
  const good = await ask(form, [...origin, ...as(project, key.secret)])
  t.match([good.status, good.headers], [200, readable], 'the upstream\'s own field is not there')
  t.match(await ask(form, origin), { status: 401, headers: readable })
  t.match(await ask(`${form}/export`, [...origin, ...as(project, key.secret)]), { status: 429, headers: { ...readable, 'retry-after': /\d/ } })
  t.match(await ask('/main/openapi.json', origin), { status: 200, headers: readable })
  t.notOk('access-control-allow-origin' in (await ask(form, ['origin', 'https://evil.example', ...as(project, key.secret)])).headers)
})

t.test('CORS forwarded: the upstream answers preflights without a key, and the gateway\'s fields are exposed', async t => {
  const fresh = await house.openGateway({})
  const answer = await call(fresh.url, { method: 'OPTIONS', path: `/hostile/${encodeURIComponent('"><svg onload=alert(1)>')}/$(id)/x`, headers: preflight })
  t.match([answer.status, answer.headers['access-control-allow-origin'], lastReached()?.method], [200, 'https://upstream.example', 'OPTIONS'])
  t.notOk('x-keygate-project' in (lastReached()?.headers ?? {}))
  const good = await ask(`/loose/forms/${project.id}`, [...origin, ...as(project, key.secret)])
  t.match(good.headers, { 'access-control-allow-origin': 'https://upstream.example', 'access-control-expose-headers': 'RateLimit, RateLimit-Policy, Retry-After' })
})
