import fc from 'fast-check'
import t from 'tap'
import { toBase62 } from '../src/base62.ts'
import { generateId, generateSecret, isValidPrefix, parseSecret } from '../src/index.ts'

t.test('every new secret has the one format and passes its own check', async t => {
  fc.assert(fc.property(fc.stringMatching(/^[a-z][a-z0-9]{1,15}$/).filter(isValidPrefix), prefix => {
    const secret = generateSecret(prefix)
    return secret.startsWith(`${prefix}_`) && /^[a-z0-9]+_[0-9A-Za-z]{22}_[0-9A-Za-z]{6}$/.test(secret) &&
      parseSecret(secret, prefix).kind === 'issued'
  }))
  t.match(generateSecret(), /^kg_/, 'kg unless told otherwise')
  t.throws(() => generateSecret('my_app'), { message: /"my_app" cannot be used/ })
})

t.test('no secret comes twice, and every place takes every character equally often', async t => {
  const count = 50_000
  const seen = new Set<string>()
  const tallies = Array.from({ length: 22 }, () => new Map<string, number>())
  for (let i = 0; i < count; i++) {
    const secret = generateSecret()
    seen.add(secret)
    for (const [at, tally] of tallies.entries()) {
      const character = secret.charAt(3 + at)
      tally.set(character, (tally.get(character) ?? 0) + 1)
    }
  }
  t.equal(seen.size, count)

  // About 806 of each are expected in each place, with a deviation of 28; 7.5 deviations fail less than once in a billion runs.
  const expected = count / 62
  for (const [at, tally] of tallies.entries()) {
    t.equal(tally.size, 62, `place ${at} takes the whole alphabet`)
    for (const [character, times] of tally) {
      if (Math.abs(times - expected) > 7.5 * Math.sqrt(expected)) t.fail(`${character} came ${times} times in place ${at}`)
    }
  }
  const all = new Map<string, number>()
  for (const tally of tallies) for (const [character, times] of tally) all.set(character, (all.get(character) ?? 0) + times)
  // Over all places a favour of 6 % shows: `byte % 62` would favour eight characters by 21 %.
  for (const [character, times] of all) {
    if (Math.abs(times - expected * 22) > 7.5 * Math.sqrt(expected * 22)) t.fail(`${character} came ${times} times`)
  }
})

t.test('ids are the kind and 22 characters', async t => {
  t.match(generateId('key'), /^key_[0-9A-Za-z]{22}$/)
  t.not(generateId('key'), generateId('key'))
})

t.test('base 62 has a fixed width and refuses what does not fit', async t => {
  t.equal(toBase62(0, 6), '000000')
  t.equal(toBase62(61, 6), '00000z')
  t.equal(toBase62(62, 6), '000010')
  t.equal(toBase62(2 ** 32 - 1, 6), '4gfFC3', 'the largest CRC32 fits')
  t.equal(toBase62(62 ** 6 - 1, 6), 'zzzzzz')
  t.throws(() => toBase62(62 ** 6, 6), { message: /does not fit in 6 base62 characters/ })
})
