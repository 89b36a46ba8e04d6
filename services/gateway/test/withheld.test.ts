import { randomUUID } from 'node:crypto'
import { mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { generateSecret } from '@keygate/api-key'
import t from 'tap'
import { basicOf, call, openGatewayHouse, type Answer } from './house.ts'
import { exchange, ok, startRawUpstream, type Seen } from './raw.ts'

const dir = mkdtempSync(join(realpathSync(tmpdir()), 'keygate-withheld-'))
const upstream = await startRawUpstream(ok())

/** An API whose keys come in `schemes` alone: `/things` for keys, `/open` for everybody, `/both` for a key with a Bearer, `/tokens` for a Bearer. */
function apiOf (name: string, schemes: Record<string, object>, more = ''): string {
  const file = join(dir, `${name}.json`)
  const responses = { 200: { description: 'ok' } }
  const keyed = Object.keys(schemes).map(scheme => ({ [scheme]: [] }))
  const header = Object.entries(schemes).find(([, scheme]) => 'in' in scheme)?.[0]
  const paths = {
    '/things': { get: { security: keyed, responses } },
    '/open': { get: { security: [], responses } },
    '/tokens': { get: { security: [{ token: [] }], responses } },
    ...header !== undefined && { '/both': { get: { security: [{ [header]: [], token: [] }], responses } } }
  }
  writeFileSync(file, JSON.stringify({ openapi: '3.0.3', info: { title: name, version: '1' }, paths, components: { securitySchemes: { ...schemes, token: { type: 'http', scheme: 'bearer' } } } }))
  return `
  - name: ${name}
    prefix: /${name}
    upstream: ${upstream.url}
    openapi: ${file}
    unlisted: forward
    policies: [{ name: default, limit: 100000, window: 60s }]
    anonymousPolicies: [{ name: anonymous, limit: 100000, window: 60s, partition: address }]
${more}`
}

const basic = { type: 'http', scheme: 'basic' }
const inHeader = (name: string): object => ({ type: 'apiKey', in: 'header', name })
const house = await openGatewayHouse(() => 'apis:' +
  apiOf('heads', { key: inHeader('X-API-Key') }, '    otherSchemes: forward') +
  apiOf('others', { key: inHeader('X-Other-Key') }) +
  apiOf('basics', { basic }), { KEYGATE_REFUSALS_LIMIT: '100000', KEYGATE_IMPORT_FORMS: 'uuid' })
t.teardown(async () => {
  await house.stop()
  await upstream.close()
  rmSync(dir, { recursive: true })
})
const [one] = house.gateways as [string]
const project = await house.createProject()
const { secret } = await project.createKey()
const key = ['X-API-Key', secret]
const get = async (path: string, headers: string[] = []): Promise<Answer> => await call(one, { path, headers })
const b64 = (text: string): string => Buffer.from(text).toString('base64')

/** What reached the upstream of a request that must be admitted. */
async function reached (path: string, headers: string[]): Promise<Seen> {
  upstream.seen.length = 0
  const { status, body } = await get(path, headers)
  if (status !== 200 || upstream.seen.length !== 1) throw new Error(`${path} ${headers.join(' ')}: ${status} ${body}`)
  return upstream.seen[0] as Seen
}

/** The client's fields that arrived with a text in them, as it is, percent-encoded or in base64. */
function holding ({ headers, target }: Seen, text: string): string[] {
  const readings = (value: string): string[] => [value, value.replace(/%([0-9a-f]{2})/gi, (_, byte: string) => String.fromCharCode(parseInt(byte, 16)))]
  const all = (value: string): string[] => [value, ...value.split(/[\s,]+/).map(part => Buffer.from(part, 'base64').toString('latin1'))].flatMap(readings)
  return [['target', target] as [string, string], ...headers].flatMap(([name, value]) => all(value).some(reading => reading.includes(text)) ? [name] : [])
}

/** Paths of every kind that admits without credentials, and with those of its API. */
const doors: Array<[path: string, credentials: string[]]> = [['/heads/open', []], ['/heads/not/listed', []], ['/others/open', []], ['/basics/open', []], ['/basics/not/listed', []], ['/heads/things', key], ['/others/things', ['X-Other-Key', secret]], ['/basics/things', basicOf(`${project.id}:${secret}`)]]

t.test('P4 GX-08: an issued secret stays here, in whatever field, on whatever path it comes', async t => {
  const stray = generateSecret('kg')
  const carried = b64(`${project.id}:${stray}`)
  const authorizations = [`Bearer ${stray}`, `bearer  ${stray}`, `Bearer x, Basic ${carried}`, `,Basic ${carried}`, `Negotiate x,BASIC  ${carried}`, `ApiKey ${stray}`, stray, `Digest username="${stray}"`, `Bearer ${stray.replaceAll('_', '%5F')}`]
  const basics = [`Basic ${carried}`, `bAsIc   ${carried}`, `Basic ${Buffer.from(`${project.id}:${stray}`).toString('base64url')}`, `Basic ${b64(`${stray}:`)}`, `Basic ${b64(stray)}`, `Basic ${b64(`u:a:${stray}`)}`, `Basic ${b64(`u:${stray.replaceAll('_', '%5F')}`)}`, `Basic ${carried}, Bearer x`]
  const fields: string[][] = [...['X-API-Key', 'X-Other-Key', 'x-oTher-kEy', 'Api-Key', 'ApiKey', 'X-Custom', 'Cookie', 'User-Agent', 'X-Request-Id', 'X-Auth-Token', 'Origin'].map(name => [name, stray]),
    ['X-Other-Key', `a, ${stray}`], ['Cookie', `a=1; key=${stray}; b=2`], ['Referer', `https://x.example/?api_key=${stray}`], ['Referer', `https://x.example/?k=${stray.replaceAll('_', '%5f')}`], ['X-Custom', `<${stray}>`], ['X-Authorization', `Basic ${carried}`], ['Authorization-Copy', `basic ${carried}`],
    ['traceparent', '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', 'tracestate', `a=${stray}`], ['Host', stray], ['X-Custom', 'first', 'X-Custom', stray]]
  for (const [path, credentials] of doors) {
    const isFree = credentials.length === 0
    const variants = [...fields.filter(([name]) => name?.toLowerCase() !== credentials[0]?.toLowerCase()), ...isFree || credentials[0] !== 'Authorization' ? authorizations.map(value => ['Authorization', value]) : [], ...isFree ? basics.map(value => ['Authorization', value]) : []]
    for (const variant of variants) {
      const headers = variant[0] === 'Host' ? ['host', stray] : variant
      const seen = variant[0] === 'Host' ? await withHost(path, credentials, stray) : await reached(path, [...credentials, 'X-Stays', 'kept', ...headers])
      t.strictSame([holding(seen, stray), holding(seen, secret)], [[], []], `${path} ${variant.join(': ').replaceAll(stray, 'kg_...')}`)
      if (variant[0] !== 'Host') t.strictSame(seen.all('x-stays'), ['kept'])
    }
  }
})

t.test('P4: a secret of another system stays here in every field that some API takes keys in', async t => {
  const imported = randomUUID()
  for (const [path, credentials] of doors) {
    const isFree = credentials.length === 0
    const variants = [['X-API-Key', imported], ['X-Other-Key', imported], ['x-other-key', ` ${imported} `], ['X-Other-Key', `x, ${imported}`], ['X-Other-Key', `Bearer ${imported}`]].filter(([name]) => isFree || name?.toLowerCase() !== credentials[0]?.toLowerCase())
    const basics = isFree ? [`Basic ${b64(`${project.id}:${imported}`)}`, `BASIC ${b64(`:${imported}`)}`] : []
    const lists = isFree || credentials[0] !== 'Authorization' ? [`Bearer x, Basic ${b64(`${project.id}:${imported}`)}`] : []
    for (const variant of [...variants, ...[...basics, ...lists].map(value => ['Authorization', value])]) t.strictSame(holding(await reached(path, [...credentials, ...variant]), imported), [], `${path} ${variant.join(': ')}`)
  }
})

t.test('what is not ours is the upstream\'s, in the same fields', async t => {
  const uuid = randomUUID()
  const kept: string[][] = [['X-Other-Key', 'a key of theirs'], ['X-Custom', uuid], ['Cookie', `session=${uuid}`], ['X-Custom', `kg_${'a'.repeat(22)}_000000`], ['X-Custom', generateSecret('other')], ['Authorization', `Bearer ${uuid}`], ['Authorization', `Basic ${b64('someone:password')}`], ['Authorization', `Basic ${b64(`${uuid}:password`)}`], ['Authorization', 'Digest username="x", realm="y"'], ['X-Method-Name', 'x'], ['X-Originally', 'x']]
  for (const [name = '', value = ''] of kept) t.strictSame((await reached('/heads/open', [name, value])).all(name), [value], `${name}: ${value}`)
  t.strictSame((await reached('/others/open', ['X-API-Key', 'a key of theirs'])).all('x-api-key'), ['a key of theirs'])
  t.strictSame((await reached('/heads/open', ['X-API-Key', 'a key of theirs'])).all('x-api-key'), [], 'but not in the field that is this API\'s')
})

t.test('GX-08: what would make another method, target or sender of a request does not go on', async t => {
  const names = ['X-HTTP-Method-Override', 'X-HTTP-Method', 'X-Method-Override', 'X-Method', 'X-Original-URL', 'X-Original-URI', 'X-Original-Method', 'X-Original-Host', 'X-Original-Forwarded-For', 'X-Rewrite-URL', 'X-Rewrite-URI', 'X-Forwarded', 'X-Forwarded-Port', 'X-Forwarded-Server', 'X-Forwarded-Uri', 'X-Forwarded-Method', 'X-Forwarded-User', 'X-Forwarded-Authorization', 'X-Forward-For', 'X-Forwarder-For', 'X-User-Id', 'X-Consumer-Groups', 'X-Credential-Identifier', 'Via', 'Forwarded', 'X-Real-IP']
  for (const [path, credentials] of doors) {
    for (const casing of [(name: string) => name, (name: string) => name.toLowerCase(), (name: string) => name.toUpperCase()]) {
      const seen = await reached(path, [...credentials, ...names.flatMap(name => [casing(name), 'spoofed'])])
      t.strictSame(seen.headers.filter(([, value]) => value === 'spoofed'), [], path)
      t.strictSame([seen.method, seen.target], ['GET', path.slice(path.indexOf('/', 1))])
    }
  }
})

t.test('GX-03: an issued secret in the target is refused, however it is escaped; as a request\'s id it is not taken', async t => {
  const escaped = [...secret].map(character => `%${character.charCodeAt(0).toString(16)}`).join('')
  upstream.seen.length = 0
  for (const text of [secret, secret.replaceAll('_', '%5F'), secret.replaceAll('_', '%5f'), escaped, escaped.replaceAll('%', '%25')]) {
    for (const path of [`/heads/open?q=${text}`, `/heads/open?a=b&${text}=1`, `/heads/open?broken=%zz&q=${text}`, `/heads/not/listed/${text}`, `/heads/things?q=${text}`]) t.match((await get(path, key)).problem, { status: 400, code: 'key_in_query' }, path.replace(text, 'kg_...'))
  }
  t.equal(upstream.seen.length, 0)
  for (const path of ['/heads/things', '/heads/open', '/nowhere']) t.match((await get(path, ['X-Request-Id', secret])).headers['x-request-id'], /^[0-9a-f-]{36}$/, path)
  t.equal((await get('/heads/open', ['X-Request-Id', 'kg_mine'])).headers['x-request-id'], 'kg_mine')
})

t.test('A4-B10 A12: the challenge is one that applies: what the operation takes, and a Bearer where that alone is missing', async t => {
  const challenge = async (path: string, headers: string[] = []): Promise<unknown[]> => {
    const { status, problem, headers: { 'www-authenticate': asked } } = await get(path, headers)
    return [status, problem.code, asked]
  }
  const forHeads = 'ApiKey realm="Keygate", header="x-api-key"'
  const forBasic = 'Basic realm="Keygate", charset="UTF-8"'
  t.strictSame(await challenge('/heads/things'), [401, 'missing_credentials', forHeads])
  for (const headers of [['X-API-Key', generateSecret('kg')], ['X-API-Key', 'x'], basicOf('x:y'), ['Authorization', 'Basic !!!!'], basicOf(`${project.id}:${generateSecret('kg')}`)]) t.strictSame(await challenge('/heads/things', headers), [401, 'invalid_credentials', forHeads])
  t.strictSame(await challenge('/others/things'), [401, 'missing_credentials', 'ApiKey realm="Keygate", header="x-other-key"'])
  t.strictSame(await challenge('/basics/things'), [401, 'missing_credentials', forBasic])
  t.strictSame(await challenge('/heads/tokens'), [401, 'missing_credentials', `${forHeads}, Bearer realm="Keygate"`], 'where a Bearer is let through')
  t.strictSame(await challenge('/basics/tokens'), [401, 'missing_credentials', forBasic])
  t.strictSame(await challenge('/heads/both', key), [401, 'bearer_missing', 'Bearer realm="Keygate"'])
  t.strictSame(await challenge('/.keygate/me'), [401, 'missing_credentials', forBasic])
  const disabled = await project.createKey()
  await project.change(disabled.id, 'POST', '/disable')
  t.strictSame(await challenge('/heads/things', ['X-API-Key', disabled.secret]), [401, 'key_disabled', forHeads])
})

t.test('a key with a Bearer: forward-auth judges as the gateway itself does, and finds what another proxy cannot leave out', async t => {
  const ask = async (path: string, headers: string[], method = 'GET'): Promise<unknown[]> => {
    const answer = await call(one, { path: '/.keygate/authorize', headers: [...headers, 'X-Original-Method', method, 'X-Original-URI', path] })
    const problem = JSON.parse(answer.headers['x-keygate-problem'] ?? '{}') as { code?: string }
    return [Number(answer.headers['x-keygate-status'] ?? 200), problem.code, answer.headers['www-authenticate'], answer.headers['x-keygate-key'] !== undefined]
  }
  const proxied = async (path: string, headers: string[]): Promise<unknown[]> => {
    upstream.seen.length = 0
    const { status, problem, headers: { 'www-authenticate': asked } } = await get(path, headers)
    return [status, problem.code, asked, upstream.seen[0]?.all('x-keygate-key').length === 1]
  }
  const bearer = ['Authorization', 'Bearer upstream-token']
  const cases: Array<[path: string, headers: string[], wanted: unknown[]]> = [
    ['/heads/both', [...key, ...bearer], [200, undefined, undefined, true]],
    ['/heads/both', [...bearer, ...key], [200, undefined, undefined, true]],
    ['/heads/both', key, [401, 'bearer_missing', 'Bearer realm="Keygate"', false]],
    ['/heads/both', [...key, 'Authorization', 'Bearer'], [401, 'bearer_missing', 'Bearer realm="Keygate"', false]],
    ['/heads/both', [...key, 'Authorization', 'Digest username="x"'], [401, 'bearer_missing', 'Bearer realm="Keygate"', false]],
    ['/heads/both', bearer, [401, 'missing_credentials', 'ApiKey realm="Keygate", header="x-api-key"', false]],
    ['/heads/both', ['X-API-Key', generateSecret('kg'), ...bearer], [401, 'invalid_credentials', 'ApiKey realm="Keygate", header="x-api-key"', false]],
    ['/heads/tokens', bearer, [200, undefined, undefined, false]],
    ['/heads/tokens', [...key, ...bearer], [403, 'operation_not_open', undefined, false]],
    ['/others/tokens', bearer, [401, 'missing_credentials', 'ApiKey realm="Keygate", header="x-other-key"', false]],
    ['/heads/both', [...key, ...basicOf('a:b')], [400, 'ambiguous_credentials', undefined, false]],
    ['/heads/both', [...key, ...bearer, ...bearer], [400, 'ambiguous_credentials', undefined, false]],
    [`/heads/both?q=${secret}`, [...key, ...bearer], [400, 'key_in_query', undefined, false]]
  ]
  for (const [path, headers, wanted] of cases) {
    t.strictSame(await proxied(path, headers), wanted, `${path} ${headers.filter((_, i) => i % 2 === 0).join(', ')}`)
    t.strictSame(await ask(path, headers), wanted, 'and by forward-auth')
  }
  t.strictSame((await reached('/heads/both', [...key, ...bearer])).all('authorization'), ['Bearer upstream-token'])

  const stray = generateSecret('kg')
  for (const headers of [['Authorization', `Bearer ${stray}`], ['Authorization', `Bearer x, Basic ${b64(`${project.id}:${stray}`)}`], ['Cookie', `key=${stray}`], ['Referer', `https://x.example/?k=${stray}`], ['X-Custom', stray]]) {
    for (const [path, credentials] of [['/heads/open', []], ['/heads/things', key]] as const) t.strictSame((await ask(path, [...credentials, ...headers])).slice(0, 2), [400, 'key_in_header'], String(headers[0]))
  }
  for (const headers of [['X-Other-Key', stray], ['X-API-Key', stray], basicOf(`${project.id}:${stray}`), ['Cookie', 'a=b'], ['X-Forwarded-User', stray]]) t.equal((await ask('/heads/open', headers))[0], 200, `${headers[0]}: such a one never goes on`)
  t.strictSame((await ask(`/heads/things?q=${stray}`, ['Origin', 'https://a.example', 'Access-Control-Request-Method', 'GET'], 'OPTIONS')).slice(0, 2), [400, 'key_in_query'], 'also of a preflight')
})

/** The same with another `Host`. */
async function withHost (path: string, credentials: string[], host: string): Promise<Seen> {
  upstream.seen.length = 0
  const lines = credentials.flatMap((text, i) => i % 2 === 0 ? [`${text}: ${credentials[i + 1] ?? ''}\r\n`] : []).join('')
  const { text } = await exchange(one, `GET ${path} HTTP/1.1\r\nHost: ${host}\r\n${lines}Connection: close\r\n\r\n`)
  if (!text.startsWith('HTTP/1.1 200')) throw new Error(text)
  return upstream.seen[0] as Seen
}
