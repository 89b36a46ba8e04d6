import { randomUUID } from 'node:crypto'
import type { Carrier, Operation } from '@keygate/api-catalog'
import { generateSecret } from '@keygate/api-key'
import t from 'tap'
import { carriersOf } from '../src/admission/carriers.ts'
import { challengeOf } from '../src/admission/challenges.ts'
import { OurSecrets } from '../src/admission/our-secrets.ts'
import { PassedFields } from '../src/proxy/passed-fields.ts'
import type { Target } from '../src/routing/target.ts'

const plain = new OurSecrets({ prefix: 'kg', importForms: [] })
const importing = new OurSecrets({ prefix: 'kg', importForms: ['uuid'] })
const basic: Carrier = { kind: 'basic' }
const header = (name: string): Carrier => ({ kind: 'header', name })
const b64 = (text: string): string => Buffer.from(text).toString('base64')
const escaped = (text: string): string => [...text].map(character => `%${character.charCodeAt(0).toString(16)}`).join('')

t.test('GX-03: an issued secret is found wherever it stands in a target, in every spelling that a reader undoes', async t => {
  for (let i = 0; i < 50; i++) {
    const secret = generateSecret('kg')
    for (const text of [secret, `x${secret}y`, `${secret}_more`, secret + secret, `kg_${secret}`, secret.replaceAll('_', '%5F'), secret.replaceAll('_', '%5f'), secret.replaceAll('_', '%255F'), escaped(secret), escaped(escaped(secret))]) t.ok(plain.isInTarget(`/x?a=${text}`), text.replace(secret, 'kg_...'))
    t.ok(plain.isInTarget(`/x?broken=%zz&a=${escaped(secret)}`), 'also beside what is no escape')
    for (const text of [secret.slice(0, -1), secret.toUpperCase(), `${secret.slice(0, -1)}${secret.endsWith('0') ? '1' : '0'}`, generateSecret('other'), randomUUID()]) t.notOk(plain.isInTarget(`/x?a=${text}`), text)
  }
})

t.test('what a field has of ours: an issued secret anywhere, what may be one where keys are carried', async t => {
  const [secret, uuid, project] = [generateSecret('kg'), randomUUID(), randomUUID()]
  for (const value of [secret, `a=1; b=${secret}; c`, `https://x.example/?k=${secret.replaceAll('_', '%5F')}`]) t.ok(plain.isInField(value))
  for (const value of ['', 'kg', 'kg_', uuid, generateSecret('other')]) t.notOk(importing.isInField(value))
  for (const value of [uuid, `x, ${uuid}`, `Bearer ${uuid}`, `"${uuid}"`, secret]) t.ok(importing.isCarriedBy(value), value)
  t.notOk(plain.isCarriedBy(uuid), 'a form that is not taken over')
  for (const value of [uuid, `app/${uuid}`, `app-${uuid}/1`, `x${uuid.toUpperCase()}9`, `app/${uuid.replaceAll('-', '%2D')}`, secret, `app/${secret}x`]) t.ok(importing.mayStandIn(value), `K25: ${value}`)
  for (const value of ['curl/8.5.0', 'Mozilla/5.0 (X11)', uuid.slice(1), '']) t.notOk(importing.mayStandIn(value), value)
  t.notOk(plain.mayStandIn(`app/${uuid}`), 'a form that is not taken over')
  for (const userPass of [`${project}:${secret}`, `${secret}:`, secret, `u:a:${secret}`, `u:${secret.replaceAll('_', '%5f')}`, `u:${escaped(secret)}`]) {
    for (const value of [`Basic ${b64(userPass)}`, `BASIC   ${b64(userPass)}`, `basic\t${b64(userPass)}`, `Bearer x, Basic ${b64(userPass)}`, `,Basic ${b64(userPass)}`, `Basic ${b64('a:b')}, bASic ${b64(userPass)}`, `Basic ${Buffer.from(userPass).toString('base64url')}`]) t.ok(plain.isInBasic(value), value)
  }
  for (const userPass of [`${project}:${uuid}`, `:${uuid}`, uuid, `a:b:${uuid}`, `a: ${uuid}\n`]) t.ok(importing.isInBasic(`Basic ${b64(userPass)}`), userPass)
  for (const userPass of [`${project}:password`, `${uuid}:`, ':', '', 'someone:kg_password']) t.notOk(importing.isInBasic(`Basic ${b64(userPass)}`), userPass)
  t.notOk(importing.isInBasic(`Bearer ${uuid}`), 'a token of the upstream\'s own may look so')
})

t.test('a name is worked out once; names that clients make up are not remembered without end', async t => {
  const carriers = [header('x-api-key')]
  const fields = new PassedFields({ carriers }, [...carriers, header('x-other-key')], plain)
  const isRemembered = (name: string): boolean => {
    const first = fields.field(name)
    return fields.field(name) === first
  }
  t.ok(isRemembered('X-Mine'))
  t.notOk(isRemembered('x'.repeat(65)), 'long ones are not')
  for (let i = 0; i < 1000; i++) fields.field(`x-${i}`)
  t.notOk(isRemembered('x-last'))
  t.strictSame(['X-API-Key', 'X-Other-Key', 'Authorization', 'X-Forwarded-Authorization', 'Cookie', 'X_Api_Key', 'Host'].map(name => fields.field(name).kind), ['stays', 'carrier', 'authorization', 'stays', 'plain', 'stays', 'stays'])
  t.notOk(fields.passes(fields.field('X-API-Key'), 'anything', false))
})

t.test('A4-B10: a 401 asks for what is taken where it was asked (RFC 9110 section 11.6.1)', async t => {
  const target = (requirements: Carrier[], { carriers = requirements, offersBearer = false, otherSchemes = 'refuse' } = {}): Target =>
    ({ kind: 'operation', api: { carriers, otherSchemes }, operation: { requirements: requirements.map(carrier => ({ carrier, also: [], alsoBearer: false })), offersBearer } as unknown as Operation } as unknown as Target)
  const ask = (target: Target | null, offered?: Carrier[]): string => challengeOf('missing_credentials', target, 'Keygate', offered)
  const forBasic = 'Basic realm="Keygate", charset="UTF-8"'
  t.equal(ask(target([basic])), forBasic)
  t.equal(ask(target([basic, header('x-api-key')])), forBasic, 'one that suffices')
  t.equal(ask(target([header('x-api-key')], { carriers: [basic, header('x-api-key')] })), 'ApiKey realm="Keygate", header="x-api-key"', 'not what only other operations take')
  t.equal(ask(target([header('a'), header('b'), header('a')])), 'ApiKey realm="Keygate", header="a", ApiKey realm="Keygate", header="b"')
  t.equal(ask(target([], { carriers: [header('a')] })), 'ApiKey realm="Keygate", header="a"', 'an operation that takes none: what its API takes')
  t.equal(ask(target([basic], { offersBearer: true, otherSchemes: 'forward' })), `${forBasic}, Bearer realm="Keygate"`, 'a Bearer would pass')
  t.equal(ask(target([basic], { offersBearer: true })), forBasic, 'it would not')
  t.equal(ask(null, [header('a')]), 'ApiKey realm="Keygate", header="a"')
  t.equal(ask(null), forBasic)
  t.equal(challengeOf('bearer_missing', target([header('a')]), 'Keygate'), 'Bearer realm="Keygate"', 'RFC 6750 section 3')
})

t.test('the carriers of a catalogue, each once', async t => {
  const catalogue = { apis: [{ carriers: [basic, header('a')] }, { carriers: [header('a'), header('b')] }] } as unknown as Parameters<typeof carriersOf>[0]
  t.strictSame(carriersOf(catalogue), [basic, header('a'), header('b')])
  t.equal(carriersOf(catalogue), carriersOf(catalogue))
})
