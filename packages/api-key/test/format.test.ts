import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import t from 'tap'
import { digestSecret, generateSecret, hintOf, importForms, isValidPrefix, lookupDigest, matchesImportForm, parseSecret, secretPattern } from '../src/index.ts'

const example = 'kg_0123456789ABCDEFGHIJKL_3S5D6s'
const base62 = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
const prefixes = fc.stringMatching(/^[a-z][a-z0-9]{1,15}$/).filter(isValidPrefix)

/** Refused without I/O: neither ours nor a form that this installation imports. */
function isRefused (text: string): boolean {
  return parseSecret(text, 'kg').kind !== 'issued' && !matchesImportForm(text, importForms)
}

t.test('the worked example of the README holds', async t => {
  const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8')
  const digest = 'DhsItYXrJ9I0FIrw4NzcBse0n54S3Y0b-9G8g3UpiWQ'
  const stored = 'pamh059bL9pc_QVUspMQTSNXA2IGvPsIK_qerztkZW4'

  t.same(parseSecret(example, 'kg'), { kind: 'issued' })
  t.equal(hintOf(example, 'kg'), 'kg_…5D6s')
  t.equal(digestSecret(example), digest)
  t.equal(lookupDigest('a pepper for the example', digest), stored)
  t.equal(secretPattern('kg').source, 'kg_[0-9A-Za-z]{22}_[0-9A-Za-z]{6}\\b')
  for (const shown of [example, '3163377942', 'kg_…5D6s', digest, stored, secretPattern('kg').source]) {
    t.ok(readme.includes(shown), `README.md shows ${shown}`)
  }
})

t.test('A4-K1 any one-character change is refused', async t => {
  const others = base62 + '_-. é\n\0'
  let tried = 0
  for (const secret of [example, generateSecret(), generateSecret()]) {
    for (let at = 0; at < secret.length; at++) {
      for (const character of others) {
        if (character === secret[at]) continue
        const changed = secret.slice(0, at) + character + secret.slice(at + 1)
        tried++
        if (!isRefused(changed)) t.fail(`accepted ${JSON.stringify(changed)}`)
      }
    }
  }
  t.ok(tried > 3 * 32 * 60, 'every position with every character')
})

t.test('A4-K1 also a lost, doubled or swapped character', async t => {
  fc.assert(fc.property(prefixes, fc.nat(), (prefix, seed) => {
    const secret = generateSecret(prefix)
    const at = seed % (secret.length - 1)
    const [first, second] = [secret.charAt(at), secret.charAt(at + 1)]
    const lost = secret.slice(0, at) + secret.slice(at + 1)
    const doubled = secret.slice(0, at) + first + secret.slice(at)
    const swapped = secret.slice(0, at) + second + first + secret.slice(at + 2)
    return [lost, doubled, swapped].every(text => text === secret || parseSecret(text, prefix).kind !== 'issued')
  }))
})

t.test('A4-K2 a double click selects the whole secret, and the next thing is not taken in', async t => {
  for (let i = 0; i < 1000; i++) {
    const secret = generateSecret()
    if (!/^\w+$/.test(secret)) t.fail(secret)
  }
  t.match(`"${example}"`.split(/\b/), [/"/, example, /"/])
})

t.test('A4-K3 the published pattern finds every issued secret wherever it stands', async t => {
  fc.assert(fc.property(prefixes, fc.string(), fc.constantFrom('', ' ', '\n', '"', '\\n', '&', '%0A', '-', '.'), (prefix, before, after) => {
    const secret = generateSecret(prefix)
    return (before + secret + after).match(new RegExp(secretPattern(prefix), 'g'))?.includes(secret) ?? false
  }))
  t.match(JSON.stringify({ log: `line\n${example}` }), secretPattern('kg'), 'after an escaped line break')
})

t.test('A4-K3 the published pattern matches none of a million random base64 strings', async t => {
  const pattern = secretPattern('kg')
  const bytes = 48
  let matched = 0
  let taken = 0
  let tried = 0
  for (let round = 0; round < 100; round++) {
    const block = randomBytes(bytes * 10_000)
    for (let i = 0; i < 10_000; i++) {
      const slice = block.subarray(i * bytes, (i + 1) * bytes)
      if (pattern.test(slice.toString('base64'))) matched++
      // base64url has the underscore: it may look like a secret once in many millions, but never with a true checksum.
      const lookalike = pattern.exec(slice.toString('base64url'))
      if (lookalike !== null && parseSecret(lookalike[0], 'kg').kind === 'issued') taken++
      tried++
    }
  }
  t.equal(tried, 1_000_000)
  t.equal(matched, 0)
  t.equal(taken, 0)
})

t.test('what a text turns out to be', async t => {
  const cases = [
    { text: example, expect: { kind: 'issued' } },
    { text: '', expect: { kind: 'foreign' } },
    { text: 'kg', expect: { kind: 'foreign' } },
    { text: 'KG_0123456789ABCDEFGHIJKL_3S5D6s', expect: { kind: 'foreign' } },
    { text: ` ${example}`, expect: { kind: 'foreign' } },
    { text: '5f1c2a4e-9d1b-4c7e-8a53-2b6f0e9d7c11', expect: { kind: 'foreign' } },
    { text: 'kg_', expect: { kind: 'malformed', reason: 'length' } },
    { text: `${example} `, expect: { kind: 'malformed', reason: 'length' } },
    { text: 'kg_' + 'A'.repeat(1_000_000), expect: { kind: 'malformed', reason: 'length' } },
    { text: 'kg_0123456789ABCDEFGHIJKL-3S5D6s', expect: { kind: 'malformed', reason: 'shape' } },
    { text: 'kg_0123456789ABCDEFGHIJ\n\n_3S5D6s', expect: { kind: 'malformed', reason: 'shape' } },
    { text: 'kg_0123456789ABCDEFGHIJKL_3S5D6\n', expect: { kind: 'malformed', reason: 'shape' } },
    { text: 'kg_0123456789ABCDEFGHIJKL_zzzzzz', expect: { kind: 'malformed', reason: 'checksum' } },
    { text: 'kg_0123456789ABCDEFGHIJKM_3S5D6s', expect: { kind: 'malformed', reason: 'checksum' } }
  ]
  for (const { text, expect } of cases) t.same(parseSecret(text, 'kg'), expect, JSON.stringify(text.slice(0, 40)))
  t.same(parseSecret(example, 'acme'), { kind: 'foreign' }, 'another installation')
})

t.test('no text at all makes the judge throw', async t => {
  fc.assert(fc.property(fc.string({ unit: 'binary' }), fc.boolean(), (text, ours) => {
    return parseSecret(ours ? `kg_${text}` : text, 'kg').kind !== 'issued'
  }))
})

t.test('import forms are off unless named, and can never catch one of our own', async t => {
  const uuid = '5f1c2a4e-9d1b-4c7e-8a53-2b6f0e9d7c11'
  t.equal(matchesImportForm(uuid, []), false)
  t.equal(matchesImportForm(uuid, ['uuid']), true)
  t.equal(matchesImportForm(uuid.toUpperCase(), ['uuid']), true)
  for (const text of ['00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff', 'FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF', '', `${uuid}\n`, `{${uuid}}`, uuid.replaceAll('-', ''), uuid.slice(1), uuid.replace('5', 'g'), example]) {
    t.equal(matchesImportForm(text, importForms), false, JSON.stringify(text))
  }
})

t.test('a hint shows the prefix if there is one, and four characters', async t => {
  t.equal(hintOf(example, 'kg'), 'kg_…5D6s')
  t.equal(hintOf('5f1c2a4e-9d1b-4c7e-8a53-2b6f0e9d7c11', 'kg'), '…7c11')
})

t.test('which prefixes can be used', async t => {
  for (const prefix of ['kg', 'acme', 'k8s', 'a234567890123456']) t.ok(isValidPrefix(prefix), prefix)
  for (const prefix of ['', 'k', 'KG', '8k', 'k_g', 'k.g', 'kg\n', 'é2', 'key', 'a2345678901234567']) {
    t.notOk(isValidPrefix(prefix), JSON.stringify(prefix))
    t.throws(() => secretPattern(prefix), { message: /cannot be used: take 2 to 16 lower case letters/ })
  }
})
