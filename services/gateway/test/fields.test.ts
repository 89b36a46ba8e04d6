import { generateSecret } from '@keygate/api-key'
import t from 'tap'
import type { Answer } from './house.ts'
import { as, form, openProbeHouse } from './probe-house.ts'

const house = await openProbeHouse()
t.teardown(house.stop)
const { get } = house

t.test('A4-R1 A4-R3 A4-R5 A4-R6: RateLimit fields are structured fields, on every answer that rests on a key and on no 401', async t => {
  const project = await house.createProject()
  const { secret } = await project.createKey({ allowedForAll: false, scopes: ['forms'], policies: [{ name: 'a', limit: 4, windowSeconds: 60, algorithm: 'sliding', partition: 'key' }, { name: 'b', limit: 50, windowSeconds: 3600, algorithm: 'sliding', partition: 'key' }] })
  const ask = async (path: string): Promise<Answer> => await get(path, as(project, secret))
  const answers = [await ask(form(project)), await ask(form(project, '?status=404')), await ask(form(project, '?status=503')), await ask(form(project).replace('/probe', '/dead')), await ask(form(project, '/submissions')), await ask(form(project))]
  t.strictSame(answers.map(({ status }) => status), [200, 404, 503, 502, 403, 429])
  for (const { status, headers } of answers) {
    const policies = list(headers['ratelimit-policy'] ?? '')
    t.strictSame(policies, [{ value: 4, parameters: { w: 60 } }, { value: 50, parameters: { w: 3600 } }], 'a List of Integers with a parameter')
    const now = dictionary(headers['ratelimit'] ?? '')
    t.strictSame(Object.keys(now), ['limit', 'remaining', 'reset'], 'a Dictionary of Integers')
    t.ok(now['limit'] === 4 && (now['remaining'] ?? -1) >= 0 && (now['reset'] ?? 0) >= 1 && (now['reset'] ?? 61) <= 60)
    t.equal('retry-after' in headers, status === 429, 'A4-R3: only when it is needed')
    if (status === 429) {
      t.match(headers['retry-after'], /^[1-9]\d*$/)
      t.ok(Number(headers['retry-after']) >= (now['reset'] ?? Infinity))
    }
    t.notMatch(JSON.stringify([headers['ratelimit'], headers['ratelimit-policy']]), new RegExp(`pk|${project.id}|key_`), 'A4-R6: nobody\'s id')
  }
  const unknown = await get(form(project), as(project, generateSecret('kg')))
  t.match([unknown.status, unknown.headers['ratelimit'], unknown.headers['ratelimit-policy'], unknown.headers['retry-after']], [401, undefined, undefined, undefined])
})

t.test('A4-R4: the fields are those of the draft that seed 001 prints, and no others: neither the older names nor the later syntax', async t => {
  const project = await house.createProject()
  const { secret } = await project.createKey({ policies: [{ name: 'default', limit: 1, windowSeconds: 60, algorithm: 'sliding', partition: 'key' }] })
  const answers = [await get(form(project), as(project, secret)), await get(form(project), as(project, secret)), await get('/probe/status')]
  t.strictSame(answers.map(({ status }) => status), [200, 429, 200])
  for (const { headers } of answers) {
    t.strictSame(Object.keys(headers).filter(name => /ratelimit/i.test(name)).sort(), ['ratelimit', 'ratelimit-policy'], 'no X-RateLimit-Limit, no RateLimit-Remaining')
    t.match([headers['ratelimit-policy'], headers['ratelimit']], [/^\d+;w=\d+$/, /^limit=\d+, remaining=\d+, reset=\d+$/], 'not `"default";q=1;w=60` and `"default";r=0;t=60`')
  }
})

/** A List of Integers with Integer parameters (RFC 9651 section 3.1). @throws {Error} on anything else. */
function list (text: string): Array<{ value: number, parameters: Record<string, number> }> {
  return text.split(/[ \t]*,[ \t]*/).map(item => {
    const [value = '', ...parameters] = item.split(/; */)
    return { value: integer(value), parameters: Object.fromEntries(parameters.map(pair)) }
  })
}

/** A Dictionary of Integers (RFC 9651 section 3.2). @throws {Error} on anything else. */
function dictionary (text: string): Record<string, number> {
  return Object.fromEntries(text.split(/[ \t]*,[ \t]*/).map(pair))
}

function pair (text: string): [string, number] {
  const [, name, value] = /^([a-z*][a-z0-9_.*-]*)=(.*)$/.exec(text) ?? []
  if (name === undefined) throw new Error(`no member: ${text}`)
  return [name, integer(value ?? '')]
}

function integer (text: string): number {
  if (!/^-?\d{1,15}$/.test(text)) throw new Error(`no Integer: ${text}`)
  return Number(text)
}
