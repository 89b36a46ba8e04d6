import { randomBytes } from 'node:crypto'
import { PassThrough } from 'node:stream'
import { digestSecret, generateSecret } from '@keygate/api-key'
import { sql } from 'drizzle-orm'
import Fastify from 'fastify'
import { test } from 'tap'
import { openDatabase } from '../src/db/database.ts'
import { migrate } from '../src/db/migrate.ts'
import { parseEncryptionKeys, parsePeppers, type RingSettings } from '../src/vault/keyring.ts'
import { checkKeysPresent } from '../src/vault/keys-present.ts'
import { createPepperUpkeep } from '../src/vault/pepper-upkeep.ts'
import { createPeppers } from '../src/vault/peppers.ts'
import { createVault, type Purpose, type Vault } from '../src/vault/vault.ts'
import { startHouse } from './helper.ts'
import { lookUp, reveal, storeReplay, storeSecrets } from './stored-secrets.ts'

/** tap's type for an expected error knows none of our members. */
const like = (wanted: object): Error => wanted as Error

const base64 = (): string => randomBytes(32).toString('base64')
const key = (id: string) => ({ id, value: randomBytes(32) })
const pepper = (id: string) => ({ id, value: base64() })
const [one, two, three] = [key('1'), key('2'), key('3')]
const [first, second, third] = [pepper('1'), pepper('2'), pepper('3')]

test('settings of the keys: what is accepted', t => {
  const previous = `old-1:${base64()},\n  old_2:${base64().replaceAll('+', '-').replaceAll('/', '_').replace('=', '')}\r\n\n`
  const parsed = parseEncryptionKeys({ current: base64(), currentId: '2', previous })
  t.match(parsed, { value: { current: { id: '2' }, previous: [{ id: 'old-1' }, { id: 'old_2' }] } })
  t.ok('value' in parsed && [parsed.value?.current, ...parsed.value?.previous ?? []].every(entry => entry?.value.length === 32))
  t.strictSame(parseEncryptionKeys({ current: undefined, currentId: '1', previous: undefined }), { value: undefined }, 'none: nothing is kept for revealing')
  t.strictSame(parsePeppers({ current: 'p'.repeat(32), currentId: '2', previous: `1:${'q:'.repeat(16)}` }), {
    value: { current: { id: '2', value: 'p'.repeat(32) }, previous: [{ id: '1', value: 'q:'.repeat(16) }] }
  }, 'a pepper may hold a colon')
  t.end()
})

test('settings of the keys: each fault names its variable and quotes no value', t => {
  const secret = 'hunter2-hunter2-hunter2-hunter2-hunter2'
  const good: RingSettings = { current: base64(), currentId: '2', previous: undefined }
  for (const [settings, fault] of [
    [{ current: secret }, /^KEYGATE_ENCRYPTION_KEY must be 32 random bytes as base64/],
    [{ current: randomBytes(31).toString('base64') }, /^KEYGATE_ENCRYPTION_KEY must be/],
    [{ current: randomBytes(33).toString('base64') }, /^KEYGATE_ENCRYPTION_KEY must be/],
    [{ current: randomBytes(32).toString('hex') }, /^KEYGATE_ENCRYPTION_KEY must be/],
    [{ current: '' }, /^KEYGATE_ENCRYPTION_KEY must be/],
    [{ currentId: 'a:b' }, /^KEYGATE_ENCRYPTION_KEY_ID must be 1 to 32/],
    [{ currentId: '' }, /^KEYGATE_ENCRYPTION_KEY_ID must be/],
    [{ currentId: 'x'.repeat(33) }, /^KEYGATE_ENCRYPTION_KEY_ID must be/],
    [{ previous: secret }, /^KEYGATE_PREVIOUS_ENCRYPTION_KEYS has no colon in entry 1: write id:base64/],
    [{ previous: `1:${base64()},3:${secret}` }, /^KEYGATE_PREVIOUS_ENCRYPTION_KEYS has a value in entry 2 that cannot be one/],
    [{ previous: `hunter2 hunter2:${base64()}` }, /^KEYGATE_PREVIOUS_ENCRYPTION_KEYS has an id in entry 1/],
    [{ previous: `1:${base64()},1:${base64()}` }, /^KEYGATE_PREVIOUS_ENCRYPTION_KEYS has "1" twice/],
    [{ previous: `2:${base64()}` }, /^KEYGATE_PREVIOUS_ENCRYPTION_KEYS has "2", which is the id of the current one too: give the current one a new id in KEYGATE_ENCRYPTION_KEY_ID/],
    [{ current: undefined, previous: `1:${base64()}` }, /^KEYGATE_PREVIOUS_ENCRYPTION_KEYS is set without KEYGATE_ENCRYPTION_KEY/]
  ] as Array<[Partial<RingSettings>, RegExp]>) {
    const parsed = parseEncryptionKeys({ ...good, ...settings })
    t.match(parsed, { faults: [fault] })
    t.notMatch(JSON.stringify(parsed), /hunter2/)
  }
  for (const [settings, fault] of [
    [{ current: 'hunter2' }, /^KEYGATE_PEPPER must be at least 32 characters/],
    [{ current: undefined }, /^KEYGATE_PEPPER must be/],
    [{ current: `${secret},x` }, /^KEYGATE_PEPPER must be .* without a comma/],
    [{ current: `${secret} ` }, /^KEYGATE_PEPPER must be/],
    [{ currentId: 'ü' }, /^KEYGATE_PEPPER_ID must be/],
    [{ previous: '1:hunter2' }, /^KEYGATE_PREVIOUS_PEPPERS has a value in entry 1/],
    [{ previous: secret }, /^KEYGATE_PREVIOUS_PEPPERS has no colon in entry 1: write id:pepper/]
  ] as Array<[Partial<RingSettings>, RegExp]>) {
    const parsed = parsePeppers({ ...good, ...settings })
    t.match(parsed, { faults: [fault] })
    t.notMatch(JSON.stringify(parsed), /hunter2/)
  }
  t.match(parsePeppers({ current: 'x', currentId: '', previous: 'y' }), { faults: [/^KEYGATE_PEPPER /, /^KEYGATE_PEPPER_ID /, /^KEYGATE_PREVIOUS_PEPPERS /] }, 'all at once')
  t.end()
})

const purpose: Purpose = { projectId: '0b1d2c3e-4f50-4a61-8b72-9c83ad94be05', keyId: 'key_1', use: 'secret' }

test('GX-22 what is encrypted comes back, under the current key and under previous ones; only the current one encrypts', t => {
  const [before, after] = [createVault({ current: one, previous: [] }), createVault({ current: two, previous: [one, three] })]
  const secret = generateSecret('kg')
  const text = before.encrypt(secret, purpose)
  t.match(text, /^v1:1:[\w-]{16}:[\w-]+:[\w-]{22}$/)
  t.notMatch(text, new RegExp(secret.slice(3)))
  t.not(before.encrypt(secret, purpose), text, 'a nonce of its own')
  t.strictSame(before.decrypt(text, purpose), { plaintext: secret })
  t.strictSame(after.decrypt(text, purpose), { plaintext: secret })
  t.match(after.encrypt(secret, purpose), /^v1:2:/)
  t.strictSame(before.decrypt(after.encrypt(secret, purpose), purpose), { cannot: 'no-key' })
  t.strictSame([after.currentId, after.ids], ['2', ['2', '1', '3']])
  for (const plaintext of ['', 'ü€😀', 'x'.repeat(10_000)]) t.strictSame(after.decrypt(after.encrypt(plaintext, purpose), purpose), { plaintext })
  t.end()
})

test('GX-22 any flipped bit of any part: "cannot be shown", never garbage', t => {
  const vault = createVault({ current: one, previous: [two] })
  const text = vault.encrypt(generateSecret('kg'), purpose)
  let flips = 0
  for (let i = 0; i < text.length; i++) {
    for (let bit = 0; bit < 8; bit++) {
      const bytes = Buffer.from(text)
      bytes[i] = bytes.readUInt8(i) ^ (1 << bit)
      if (!('cannot' in vault.decrypt(bytes.toString('latin1'), purpose))) t.fail(`bit ${bit} of character ${i}`)
      flips++
    }
  }
  const parts = text.split(':')
  for (const [part, encoded] of parts.entries()) {
    if (part < 2) continue
    for (let bit = 0; bit < Buffer.from(encoded, 'base64url').length * 8; bit++) {
      const bytes = Buffer.from(encoded, 'base64url')
      bytes[bit >> 3] = bytes.readUInt8(bit >> 3) ^ (1 << (bit & 7))
      const decrypted = vault.decrypt(parts.with(part, bytes.toString('base64url')).join(':'), purpose)
      if (!('cannot' in decrypted) || decrypted.cannot !== 'damaged') t.fail(`bit ${bit} of part ${part}`)
      flips++
    }
  }
  t.ok(flips > 1000, `${flips} flips`)
  t.end()
})

test('GX-22 a ciphertext is of no use for another key, project or purpose, under another id, or in another format', t => {
  const vault = createVault({ current: one, previous: [{ id: '9', value: one.value }, two] })
  const text = vault.encrypt(generateSecret('kg'), purpose)
  for (const other of [{ keyId: 'key_2' }, { projectId: '1b1d2c3e-4f50-4a61-8b72-9c83ad94be05' }, { use: 'replay' }, { projectId: purpose.keyId, keyId: purpose.projectId }] as Array<Partial<Purpose>>) {
    t.strictSame(vault.decrypt(text, { ...purpose, ...other }), { cannot: 'damaged' })
  }
  const joined = vault.encrypt('x', { ...purpose, projectId: 'a","b', keyId: 'c' })
  t.strictSame(vault.decrypt(joined, { ...purpose, projectId: 'a', keyId: 'b","c' }), { cannot: 'damaged' }, 'no two purposes are one')
  const [, , nonce, ciphertext, tag] = text.split(':') as [string, string, string, string, string]
  t.strictSame(vault.decrypt(`v1:9:${nonce}:${ciphertext}:${tag}`, purpose), { cannot: 'damaged' }, 'the same key under another id')
  t.strictSame(vault.decrypt(`v1:2:${nonce}:${ciphertext}:${tag}`, purpose), { cannot: 'damaged' }, 'another key')
  t.strictSame(vault.decrypt(`v1:4:${nonce}:${ciphertext}:${tag}`, purpose), { cannot: 'no-key' }, 'an unknown key')
  for (const wrong of [
    '', 'v1', 'v1:1', 'plain text', ':::::', `v2:1:${nonce}:${ciphertext}:${tag}`, `V1:1:${nonce}:${ciphertext}:${tag}`, `v1:1:${nonce}:${ciphertext}`, `${text}:`, `${text}=`, ` ${text}`,
    `v1:1:${nonce}:${ciphertext}:${tag.slice(0, 16)}`, `v1:1:${nonce}:${ciphertext}:`, `v1:1::${ciphertext}:${tag}`, `v1:1:${nonce}AAAA:${ciphertext}:${tag}`, `v1:1:${nonce}::${tag}`, `v1:1:${tag}:${ciphertext}:${nonce}`
  ]) t.strictSame(vault.decrypt(wrong, purpose), { cannot: 'damaged' }, wrong.slice(0, 20))
  t.end()
})

test('peppers: the current one for what is new, all of them for looking up', t => {
  const peppers = createPeppers({ current: second, previous: [first] })
  const digest = digestSecret('kg_x')
  t.strictSame(peppers.all(digest), [peppers.current(digest), createPeppers({ current: first, previous: [] }).current(digest)])
  t.strictSame([peppers.currentId, peppers.ids, peppers.current(digest).pepperId], ['2', ['2', '1'], '2'])
  t.throws(() => peppers.current('kg_x'), RangeError)
  t.end()
})

test('the vault and PostgreSQL', async t => {
  const house = await startHouse(t)

  async function start () {
    const url = await house.database()
    await migrate(url)
    const database = openDatabase(url, { timeoutMs: 20_000 })
    t.teardown(async () => { await database.close() })
    return database
  }

  await t.test('GX-22 every pepper and key that something stored needs must be configured', async t => {
    const database = await start()
    const check = async (vault: Vault | undefined, ids: Array<typeof first>) => {
      const [current = first, ...previous] = ids
      await database.transaction(async tx => { await checkKeysPresent(tx, vault, createPeppers({ current, previous })) })
    }
    const [ring1, ring2] = [createVault({ current: one, previous: [] }), createVault({ current: two, previous: [one] })]
    await t.resolves(check(undefined, [third]), 'nothing is stored')

    const [replayed] = await database.run(async db => await storeSecrets(db, 2, { vault: ring1, peppers: createPeppers({ current: first, previous: [] }) }))
    await database.run(async db => { if (replayed !== undefined) await storeReplay(db, replayed, ring1) })
    await database.run(async db => await storeSecrets(db, 1, { vault: ring2, peppers: createPeppers({ current: second, previous: [] }) }))
    await database.run(async db => await storeSecrets(db, 1, { peppers: createPeppers({ current: second, previous: [] }) }))
    await t.resolves(check(ring2, [second, first]))
    await t.resolves(check(createVault({ current: three, previous: [two, one] }), [third, second, first]), 'more are no fault')

    await t.rejects(check(createVault({ current: three, previous: [two] }), [third, second]), like({
      name: 'ConfigError',
      faults: [
        /^KEYGATE_PREVIOUS_PEPPERS lacks the pepper "1", without which 2 secrets cannot be verified: add 1:<the pepper>\. If it is lost: node dist\/cli\.js secrets rewrap /,
        /^KEYGATE_PREVIOUS_ENCRYPTION_KEYS lacks the key "1", without which 3 secrets cannot be shown: add 1:<.*>\. If it is lost: node dist\/cli\.js encryption-key forget 1; /
      ]
    }), 'a replay counts too')
    await t.rejects(check(undefined, [second, first]), like({ faults: [/^KEYGATE_ENCRYPTION_KEY is missing, and 3 secrets .* KEYGATE_ENCRYPTION_KEY_ID to 1/, /^KEYGATE_ENCRYPTION_KEY is missing, and 1 secret .* forget 2;/] }))
  })

  await t.test('upkeep: a secret that is used moves to the current pepper, off the request, and only if it is still the same', async t => {
    const database = await start()
    const [old, peppers] = [createPeppers({ current: first, previous: [] }), createPeppers({ current: third, previous: [second, first] })]
    const stored = await database.run(async db => await storeSecrets(db, 600, { peppers: old }))
    const [unused, replaced, ...used] = stored
    if (unused === undefined || replaced === undefined) throw new Error('no secrets')
    const lines = new PassThrough()
    const upkeep = createPepperUpkeep({ database, peppers, log: Fastify({ logger: { stream: lines } }).log, intervalMs: 3_600_000 })
    for (const { secretId, secret } of used) upkeep.note({ secretId, digest: digestSecret(secret) })
    upkeep.note({ secretId: replaced.secretId, digest: digestSecret(generateSecret('kg')) })
    await upkeep.flush()
    const found = async (secret: string) => await database.run(async db => await lookUp(db, secret, peppers))
    for (const { secret, secretId } of used) if ((await found(secret))?.pepperId !== '3') t.fail(secretId)
    t.match(await found(unused.secret), { id: unused.secretId, pepperId: '1' })
    t.match(await found(replaced.secret), { id: replaced.secretId, pepperId: '1' }, 'another digest than the noted one stays')

    // The new digest is taken, as by an import that did not look under every pepper: said in the log without it, and left as it is.
    const [twin] = await database.run(async db => await storeSecrets(db, 1, { peppers }))
    await database.run(async db => await db.execute(sql`UPDATE secrets SET digest = ${peppers.current(digestSecret(unused.secret)).digest} WHERE id = ${twin?.secretId}`))
    upkeep.note({ secretId: unused.secretId, digest: digestSecret(unused.secret) })
    await upkeep.flush()
    const said = String(lines.read())
    t.match(said, /secrets stay under an old pepper.*/)
    t.match(JSON.parse(said), { level: 40, secrets: 1, code: '23505' })
    for (const { digest } of peppers.all(digestSecret(unused.secret))) t.notOk(said.includes(digest))
    await database.run(async db => await db.execute(sql`DELETE FROM secrets WHERE id = ${twin?.secretId}`))
    upkeep.note({ secretId: unused.secretId, digest: digestSecret(unused.secret) })
    await upkeep.close()
    t.match(await found(unused.secret), { pepperId: '3' }, 'at the next use, and on closing')
    upkeep.note({ secretId: replaced.secretId, digest: digestSecret(replaced.secret) })
    await upkeep.flush()
    t.match(await found(replaced.secret), { pepperId: '1' }, 'nothing after that')
  })

  await t.test('upkeep: its timer moves what was noted', async t => {
    const database = await start()
    const peppers = createPeppers({ current: second, previous: [first] })
    const [stored] = await database.run(async db => await storeSecrets(db, 1, { peppers: createPeppers({ current: first, previous: [] }) }))
    if (stored === undefined) throw new Error('no secret')
    const upkeep = createPepperUpkeep({ database, peppers, log: Fastify({ logger: false }).log, intervalMs: 1 })
    upkeep.note({ secretId: stored.secretId, digest: digestSecret(stored.secret) })
    while ((await database.run(async db => await lookUp(db, stored.secret, peppers)))?.pepperId !== '2');
    await upkeep.close()
    t.match(await database.run(async db => await reveal(db, stored, createVault({ current: one, previous: [] }))), 'sealed')
  })
})
