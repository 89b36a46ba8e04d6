import { createHash, createHmac } from 'node:crypto'
import fc from 'fast-check'
import t from 'tap'
import { digestSecret, generateSecret, isDigest, lookupDigest } from '../src/index.ts'

t.test('the digest is SHA-256 as 43 characters of base64url', async t => {
  // FIPS 180-2, appendix B.1: the digest of "abc".
  const abc = 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'
  t.equal(digestSecret('abc'), Buffer.from(abc, 'hex').toString('base64url'))
  fc.assert(fc.property(fc.string({ unit: 'grapheme' }), text => {
    const digest = digestSecret(text)
    return digest === createHash('sha256').update(text, 'utf8').digest('base64url') && digest.length === 43 && isDigest(digest)
  }))
})

t.test('what is stored is HMAC-SHA256 of the digest\'s bytes, never of its text', async t => {
  const pepper = 'pepper of the test'
  const secret = generateSecret()
  const wanted = createHmac('sha256', pepper).update(createHash('sha256').update(secret).digest()).digest('base64url')
  t.equal(lookupDigest(pepper, digestSecret(secret)), wanted)
  t.equal(lookupDigest(Buffer.from(pepper), digestSecret(secret)), wanted, 'a Buffer is the same pepper')
  t.not(lookupDigest('another pepper', digestSecret(secret)), wanted)
  t.ok(isDigest(wanted))
})

t.test('only the one canonical spelling is a digest', async t => {
  const digest = digestSecret('abc')
  const last = digest.slice(-1)
  const sameBytes = digest.slice(0, -1) + String.fromCharCode(last.charCodeAt(0) + 1)
  t.same(Buffer.from(sameBytes, 'base64url'), Buffer.from(digest, 'base64url'), 'the other spelling decodes to the same bytes')
  for (const text of ['', 'abc', sameBytes, `${digest}=`, `${digest}\n`, digest.slice(1), `+${digest.slice(1)}`, 'A'.repeat(44)]) {
    t.notOk(isDigest(text), JSON.stringify(text))
    t.throws(() => lookupDigest('pepper', text), { message: /Not a digest/ })
  }
  t.throws(() => lookupDigest('', digest), { message: /pepper is empty/ })
  t.throws(() => lookupDigest(Buffer.alloc(0), digest), { message: /pepper is empty/ })
})
