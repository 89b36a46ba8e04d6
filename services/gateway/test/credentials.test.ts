import { randomUUID } from 'node:crypto'
import { generateSecret } from '@keygate/api-key'
import { Redis } from 'ioredis'
import t from 'tap'
import { isPlainBasic, namesKeyInQuery } from '../src/admission/credentials.ts'
import { OurSecrets } from '../src/admission/our-secrets.ts'
import type { Gateway } from './house.ts'
import { as, form, openProbeHouse } from './probe-house.ts'

const house = await openProbeHouse()
t.teardown(house.stop)
const { behindProxy, upstream, get } = house

const raw = (bytes: Buffer | string, scheme = 'Basic '): string[] => ['Authorization', scheme + Buffer.from(bytes as string).toString('base64')]
/** What an answer says, and how often key-service was asked for it. */
async function cost ({ url, metric }: Gateway, path: string, headers: string[]): Promise<[status: number, code: string | undefined, lookUps: number]> {
  const before = await metric('gateway_verifications_total')
  const { status, problem } = await get(path, headers, url)
  return [status, problem.code, await metric('gateway_verifications_total') - before]
}

const project = await house.createProject()
const { secret } = await project.createKey()
const wrong = [401, 'invalid_credentials', 0]

t.test('A4-B1 A4-B2 A4-B3 A4-B4 A4-B5 A4-B8: a user that is no project is 401 without a look-up, whatever its password', async t => {
  const vectors: Record<string, string[]> = {
    'A4-B1: the example of RFC 7617 section 2': ['Authorization', 'Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=='],
    'A4-B2: the example of RFC 7617 section 2.1': ['Authorization', 'Basic dGVzdDoxMjPCow=='],
    'A4-B3: more colons': raw(`${project.id}:a:b:c`),
    'A4-B3: a colon before the right secret': raw(`${project.id}::${secret}`),
    'A4-B3: the user twice': raw(`${project.id}:${project.id}:${secret}`),
    'A4-B4: in another case, and wrong': raw('test:test', 'BASIC '),
    'A4-B5: no colon': raw(project.id + secret),
    'A4-B5: empty user and password': raw(':'),
    'A4-B5: nothing': ['Authorization', 'Basic'],
    'A4-B5: nothing behind a space': ['Authorization', 'Basic '],
    'A4-B5: no base64': ['Authorization', 'Basic !!!!'],
    'A4-B5: a control character': raw(`${project.id}:${secret}\x01`),
    'A4-B5: a line break before': raw(`\n${project.id}:${secret}`),
    'A4-B5: NUL': raw(`${project.id}\0:${secret}`),
    'A4-B5: a tab behind the scheme': raw(`${project.id}:${secret}`, 'Basic\t'),
    'A4-B5: a tab behind a space': raw(`${project.id}:${secret}`, 'Basic \t'),
    'A4-B5: a list': ['Authorization', `${as(project, secret)[1]}, ${as(project, secret)[1]}`],
    'A4-B5: a list of schemes': ['Authorization', `${as(project, secret)[1]}, Bearer x`],
    'A4-B5: a parameter': ['Authorization', `${as(project, secret)[1]}, realm="x"`],
    'A4-B8: e with an accent, composed': raw(`${project.id}é:${secret}`.normalize('NFC')),
    'A4-B8: e with an accent, in two parts': raw(`${project.id}é:${secret}`.normalize('NFD')),
    'A4-B8: a byte order mark before the user': raw(`\ufeff${project.id}:${secret}`),
    'A4-B8: a byte order mark before the password': raw(`${project.id}:\ufeff${secret}`),
    'A4-B8: NEL behind the user': raw(`${project.id}\u0085:${secret}`),
    'A4-B8: a zero width space': raw(`${project.id}\u200b:${secret}`),
    'A4-B8: full width digits': raw(`${project.id.replace(/\d/, digit => String.fromCodePoint(0xff10 + Number(digit)))}:${secret}`),
    braces: raw(`{${project.id}}:${secret}`),
    'urn:uuid': raw(`urn:uuid:${project.id}:${secret}`),
    'no hyphens': raw(`${project.id.replaceAll('-', '')}:${secret}`),
    'a space behind the user': raw(`${project.id} :${secret}`),
    'a space before the password': raw(`${project.id}: ${secret}`),
    'the secret as the user': raw(`${secret}:${project.id}`)
  }
  upstream.hits = 0
  for (const [name, headers] of Object.entries(vectors)) t.strictSame(await cost(behindProxy, form(project), headers), wrong, name)
  const { status } = await get(form(project), ['Authorization', 'Digest username="x"'])
  t.equal(status, 401, 'another scheme is no key')
  t.equal(upstream.hits, 0)
  t.equal((await get(form(project), as(project, secret), behindProxy.url)).status, 200, 'while the plain spelling passes')
})

t.test('A4-B6: base64 in one spelling: padded, in the plain alphabet, without stray bits, without anything between', async t => {
  const uuid = randomUUID()
  const plain = Buffer.from(`${project.id}:${uuid}`).toString('base64')
  t.match(plain, /==$/, 'its last character has four bits that nobody reads')
  t.strictSame(await cost(behindProxy, form(project), ['Authorization', `Basic ${plain}`]), [401, 'invalid_credentials', 1], 'the plain spelling is asked for')
  const last = plain.at(-3) as string
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'
  const spellings = [plain.slice(0, -1), plain.slice(0, -2), `${plain}=`, `${plain}==`, `=${plain}`, plain.slice(0, -3) + alphabet[alphabet.indexOf(last) + 1] + '==', `${plain.slice(0, 10)} ${plain.slice(10)}`, `${plain.slice(0, 8)}=${plain.slice(8)}`, `${plain.slice(0, 8)}-${plain.slice(8)}`,
    `${plain.slice(0, 8)}.${plain.slice(8)}`, `"${plain}"`, `${plain}AAAA`]
  for (const spelling of spellings) t.strictSame(await cost(behindProxy, form(project), ['Authorization', `Basic ${spelling}`]), wrong, spelling)

  for (const [bytes, isPlain] of [['>>>???', true], ['a', true], ['ab', true], ['', true]] as const) t.equal(isPlainBasic(`Basic ${Buffer.from(bytes).toString('base64')}`), isPlain)
  t.notOk(isPlainBasic('Basic Pj4-Pz8_'), 'the alphabet of URLs')
  t.ok(isPlainBasic('Basic Pj4+Pz8/'))
})

t.test('A4-B7: what is no UTF-8 is refused, so that no two credentials become one', async t => {
  const broken: Record<string, Buffer> = {
    'a byte 0xff': Buffer.from([0xff]),
    'Latin-1': Buffer.from('£', 'latin1'),
    'an overlong slash': Buffer.from([0xc0, 0xaf]),
    'an overlong NUL': Buffer.from([0xc0, 0x80]),
    'half of a pair': Buffer.from([0xed, 0xa0, 0x80]),
    'beyond the last character': Buffer.from([0xf4, 0x90, 0x80, 0x80]),
    'a character cut off': Buffer.from([0xe2, 0x82])
  }
  for (const [name, bytes] of Object.entries(broken)) {
    for (const userPass of [Buffer.concat([Buffer.from(`${project.id}:`), bytes]), Buffer.concat([bytes, Buffer.from(`${project.id}:${secret}`)]), Buffer.concat([Buffer.from(`${project.id}:${secret}`), bytes])]) {
      t.strictSame(await cost(behindProxy, form(project), raw(userPass)), wrong, name)
    }
  }
  t.ok(isPlainBasic(`Basic ${Buffer.from('test:123£').toString('base64')}`))
})

t.test('A14 A4-B9 A4-B11: more than one way at once is 400, and nobody guesses which was meant', async t => {
  const [, basic = ''] = as(project, secret)
  const doubled: Record<string, string[]> = {
    'A4-B9: Basic twice': ['Authorization', basic, 'Authorization', basic],
    'A4-B9: Basic, then Bearer': ['Authorization', basic, 'Authorization', 'Bearer x'],
    'A4-B9: Bearer, then Basic': ['Authorization', 'Bearer x', 'authorization', basic],
    'A4-B9: right, then wrong': ['Authorization', basic, 'Authorization', 'Basic eDp5'],
    'A4-B9: right, then empty': ['Authorization', basic, 'Authorization', ''],
    'A4-B9: two Bearers beside a header key': ['X-API-Key', secret, 'Authorization', 'Bearer x', 'Authorization', 'Bearer y'],
    'A4-B11: Basic and the header': [...as(project, secret), 'X-API-Key', secret],
    'A4-B11: Basic and an empty header': [...as(project, secret), 'X-API-Key', ''],
    'A4-B11: a malformed Basic and the header': ['Authorization', 'Basic !!!!', 'X-API-Key', secret],
    'the header twice': ['X-API-Key', secret, 'x-api-key', secret],
    'the header twice, one empty': ['X-API-Key', secret, 'X-API-Key', '']
  }
  upstream.hits = 0
  for (const [name, headers] of Object.entries(doubled)) t.strictSame(await cost(behindProxy, form(project), headers), [400, 'ambiguous_credentials', 0], name)
  for (const value of [`${secret}, ${secret}`, `${secret},`, `,${secret}`, `"${secret}"`, `Bearer ${secret}`, '']) t.strictSame(await cost(behindProxy, form(project), ['X-API-Key', value]), wrong, `the header as ${JSON.stringify(value)}`)
  t.strictSame(await cost(behindProxy, form(project), ['Authorization', `Bearer ${secret}`]), [401, 'missing_credentials', 0], 'A11: a Bearer is no key')
  t.strictSame(await cost(behindProxy, form(project), ['X_API_Key', secret]), [401, 'missing_credentials', 0], 'nor is another header\'s name')
  t.equal(upstream.hits, 0)
})

t.test('a Bearer beside a header key goes on untouched, and our header stays here', async t => {
  for (const bearer of ['Bearer upstream-token', 'bearer  a.b.c', 'Digest username="x", realm="y"', 'Negotiate YII=']) {
    const { status } = await get(form(project), ['x-aPi-kEy', secret, 'Authorization', bearer])
    t.match([status, upstream.headers], [200, { authorization: bearer, 'x-keygate-project': project.id }])
    t.notOk('x-api-key' in upstream.headers)
    t.notMatch(JSON.stringify(upstream.headers), secret)
  }
  await get(form(project), as(project, secret))
  t.notOk('authorization' in upstream.headers, 'a Basic that was a key does not')
})

t.test('GX-03: a key in the address is refused with a hint: by its name where a key is asked for, by itself everywhere', async t => {
  const refused = [400, 'key_in_query', 0]
  upstream.hits = 0
  for (const name of ['api_key', 'api-key', 'apikey', 'apiKey', 'API_KEY', 'x-api-key', 'X-API-Key', 'x_api_key', 'access_key', 'accesskey', 'api%5fkey', '%61pi_key']) {
    t.strictSame(await cost(behindProxy, form(project, `?${name}=x`), []), refused, name)
    t.strictSame(await cost(behindProxy, form(project, `?a=b&${name}=`), []), refused, name)
  }
  t.strictSame(await cost(behindProxy, form(project, '?key=x&apikeys=y'), []), [401, 'missing_credentials', 0], 'what only sounds like it')
  for (const path of [form(project, `?token=${secret}`), form(project, `?a=b&${secret}`), form(project, `/versions/${secret}`), `/probe/forms/${secret}`, `/probe/status?q=${secret}`, `/.keygate/me?key=${secret}`]) {
    t.strictSame(await cost(behindProxy, path, []), refused, path.replace(secret, 'kg_...'))
    t.strictSame(await cost(behindProxy, path, as(project, secret)), refused, 'also beside the right credentials')
  }
  const answer = await get(form(project, `?token=${secret}`))
  t.notMatch(answer.body, secret, 'and it is not said again')
  t.match(answer.problem, { detail: /Basic/ })
  t.equal(upstream.hits, 0)
  t.equal((await get(form(project, '?api_key=of-the-upstream'), as(project, secret))).status, 200, 'with a key a parameter of that name is the upstream\'s')
  t.equal((await get('/probe/status?api_key=of-the-upstream')).status, 200, 'and on a public operation')
  t.equal((await get(form(project, `?q=kg_${'a'.repeat(22)}_000000`), as(project, secret))).status, 200, 'a text that nobody issued is only a text')

  const secrets = new OurSecrets({ prefix: 'kg', importForms: [] })
  const has = (url: string): boolean => secrets.isInTarget(url)
  for (let i = 0; i < 100; i++) t.ok(has(`/x?a=b${generateSecret('kg')}`))
  t.notOk(has(`/x?a=${generateSecret('other')}`))
  t.ok(namesKeyInQuery('/x?y=1&Own-Header=2', [{ kind: 'header', name: 'own-header' }]), 'the header that the document names')
  t.notOk(namesKeyInQuery('/api_key', []))
})

t.test('A4-K1: malformed credentials cost no look-up, and of Redis nothing but the address\'s counter', async t => {
  const redis = new Redis(house.stack.redisUrl)
  t.teardown(() => { redis.disconnect() })
  const monitor = await redis.monitor()
  t.teardown(() => { monitor.disconnect() })
  const commands: string[][] = []
  monitor.on('monitor', (_time: string, command: string[]) => { commands.push(command) })
  const malformed = [['X-API-Key', secret.slice(0, -1)], ['X-API-Key', `${secret.slice(0, -1)}${secret.endsWith('0') ? '1' : '0'}`], as(project, `x${secret.slice(1)}`), raw('x:y'), ['Authorization', 'Basic !!!!'], []]
  for (const headers of malformed) t.equal((await get(form(project), headers)).status, 401)
  await redis.echo('the end')
  while (!commands.some(command => command.includes('the end'))) await new Promise(resolve => { monitor.once('monitor', resolve) })
  t.strictSame(commands.filter(command => command.some(part => part.includes(project.id))), [], 'no key of the project')
  const counted = commands.filter(command => command.some(part => /^kg:\{a:/.test(part)) && /^(?:eval|fcall)/i.test(command[0] ?? ''))
  t.equal(counted.length, malformed.length)
})

t.test('A5 A11 A15 A19: what comes before credentials, and what only after them', async t => {
  const project = await house.createProject()
  const { secret } = await project.createKey({ allowedForAll: false, scopes: ['forms'] })
  for (const id of ['abc', `${project.id}x`, project.id.replaceAll('-', ''), `{${project.id}}`, encodeURIComponent(`${project.id}\n`)]) t.match((await get(`/probe/forms/${encodeURI(id)}`, as(project, secret))).status, 400, `A5: ${id}`)
  t.match((await get(form(project), ['Authorization', 'Bearer x'])).problem, { status: 401, code: 'missing_credentials' }, 'A11')
  t.match((await get(form(project, '/submissions'), as(project, secret))).problem, { status: 403, code: 'scope_missing' }, 'A15')
  upstream.hits = 0
  t.match((await get(form(project, `/submissions/${randomUUID()}`))).problem, { status: 401, code: 'missing_credentials' }, 'A19: not 404')
  t.equal(upstream.hits, 0)
})

t.test('A18: what is judged is what goes on, in one spelling, and no spelling is another project\'s', async t => {
  const other = await house.createProject()
  const id = other.id
  const spellings = [`/forms/${project.id}%252e%252e%252f${id}`, `/forms/%252e%252e/${id}`, `/forms/${project.id}/..;/${id}`, `/forms/..;/forms/${id}`, `/forms/${project.id}%c0%af..%c0%af${id}`, `/forms/%c0%ae%c0%ae/forms/${id}`, `/forms/${id};jsessionid=1`, `/forms;a=b/${id}`, `/forms/${id}.`, `/forms/${id}%20`, `/forms/${id}%09`, `/forms/${id}%0d%0a`,
    `/FORMS/${id}`, `/Forms/${id}`, `/forms/${id}/`, `/forms//${id}`, `/forms/${id}//versions`, `/./forms/${id}`, `/forms/${id}/.`, `/forms/${id}/%2e`, `/forms/${id}/versions/..`, `/forms/${id}/%2E%2e/`, `/forms%2f${id}`, `/forms%5c${id}`, `/forms/${id}%00`, `/forms/${id}%00.json`, `/forms/${id}.json`, `/forms/%u0041${id}`,
    `/forms/${id}%ef%bc%8fversions`, `/forms/${encodeURIComponent(`${project.id},${id}`)}`, `/forms/${project.id},${id}`, `/%66orms/${id}`, `/forms/%7b${id}%7d`, form(project, '/versions/%252e%252e%252f').slice(6), `/forms/${id}?formId=${project.id}`, `/forms/${id}?_method=GET&formId=${project.id}`]
  for (const spelling of spellings) {
    upstream.hits = 0
    const { status } = await get(`/probe${spelling}`, as(project, secret))
    t.ok([400, 401, 404].includes(status), `${spelling}: ${status}`)
    t.equal(upstream.hits, 0, spelling)
  }
  for (const [spelling, sent] of [[`/forms/%${project.id.charCodeAt(0).toString(16)}${project.id.slice(1)}`, form(project)], [`/forms/${project.id.toUpperCase()}/versions`, null], [`/%66orms/${project.id}`, form(project)], [form(project, '/versions/%31').slice(6), form(project, '/versions/1')],
    [form(project, '/versions/a%3bb%3fc%23d%20e').slice(6), form(project, '/versions/a%3Bb%3Fc%23d%20e')], [form(project, '/versions/1;v=2').slice(6), form(project, '/versions/1%3Bv%3D2')]] as Array<[string, string | null]>) {
    const { status } = await get(`/probe${spelling}`, as(project, secret))
    t.equal(status, 200, spelling)
    t.equal(upstream.url, sent === null ? `/forms/${project.id.toUpperCase()}/versions` : sent.slice(6), spelling)
  }
})
