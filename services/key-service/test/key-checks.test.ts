import { randomBytes } from 'node:crypto'
import { PassThrough } from 'node:stream'
import { digestSecret } from '@keygate/api-key'
import { sql } from 'drizzle-orm'
import { test, type Test } from 'tap'
import type { Command } from '../src/cli/command.ts'
import { encryptionKeyForget } from '../src/cli/encryption-key-forget.ts'
import { secretsRewrap } from '../src/cli/secrets-rewrap.ts'
import { openDatabase, type Database } from '../src/db/database.ts'
import { migrate } from '../src/db/migrate.ts'
import { retireSecret } from '../src/keys/secrets.ts'
import { checkOf } from '../src/vault/check-values.ts'
import type { Ring } from '../src/vault/keyring.ts'
import { checkKeysPresent, findUnknownPeppers } from '../src/vault/keys-present.ts'
import { createPeppers } from '../src/vault/peppers.ts'
import { createVault } from '../src/vault/vault.ts'
import { configFor, startApp, startHouse } from './helper.ts'
import { pidOf, waiterFor } from './lock-watch.ts'
import { tablesOf } from './people-helper.ts'
import { lookUp, storeReplay, storeSecrets } from './stored-secrets.ts'

/** tap's type for an expected error knows none of our members. */
const like = (wanted: object): Error => wanted as Error

const key = (id: string) => ({ id, value: randomBytes(32) })
const pepper = (id: string) => ({ id, value: randomBytes(32).toString('base64') })
const ringOf = <T>(current: T, ...previous: T[]) => ({ current, previous })

interface Keys { peppers: Ring<string>, encryptionKeys: Ring<Buffer> | undefined }

/** As they stand in the database for these settings, peppers first. */
function valuesOf ({ peppers, encryptionKeys }: Keys): string[] {
  return [...createPeppers(peppers).checks, ...encryptionKeys === undefined ? [] : createVault(encryptionKeys).checks].map(({ value }) => value)
}

/** By what is recorded, when all are sealed. */
const pepperIsNotRecorded = /^KEYGATE_PEPPER is not the one that is recorded for the id "1", which stored secrets have: .*KEYGATE_PEPPER_ID and put the old one into KEYGATE_PREVIOUS_PEPPERS\..* secrets rewrap" without the pepper "1" /
const previousIsNotRecorded = /^KEYGATE_PREVIOUS_PEPPERS has under the id "1", which stored secrets have, another pepper than the one that is recorded: put that one back\..* secrets rewrap" without the pepper "1" /
/** By what is stored. */
const pepperIsAnother = /^KEYGATE_PEPPER with the id "1" is not the one that stored secrets have under its id \(tried: \d\): .*KEYGATE_PEPPER_ID and put the old one into KEYGATE_PREVIOUS_PEPPERS\. If .* secrets rewrap/
const previousIsAnother = /^KEYGATE_PREVIOUS_PEPPERS has under the id "1" a pepper that is not the one that stored secrets have .*: put the old one back\. If .* secrets rewrap/
const keyIsAnother = /^KEYGATE_ENCRYPTION_KEY with the id "1" decrypts nothing of what is stored under its id \(tried: \d\): .*KEYGATE_ENCRYPTION_KEY_ID and put the old one into KEYGATE_PREVIOUS_ENCRYPTION_KEYS\. If .* encryption-key forget 1$/
const previousKeyIsAnother = /^KEYGATE_PREVIOUS_ENCRYPTION_KEYS has under the id "1" a key that decrypts nothing .*: put the old one back\. If .* encryption-key forget 1$/

test('check values', t => {
  const [one, other] = [pepper('1'), pepper('1')]
  t.match(checkOf('pepper', one), { kind: 'pepper', id: '1', value: /^[\w-]{43}$/ })
  t.strictSame(checkOf('pepper', one), checkOf('pepper', one), 'always the same')
  const values = [checkOf('pepper', one), checkOf('pepper', other), checkOf('pepper', { ...one, id: '2' }), checkOf('encryption-key', one), checkOf('encryption-key', { id: '1', value: Buffer.from(one.value) })].map(({ value }) => value)
  t.equal(new Set(values).size, 4, 'another one for another value, id or kind')
  t.end()
})

test('F14 values under ids are known again', async t => {
  const house = await startHouse(t)

  async function start (t: Test) {
    const url = await house.database()
    await migrate(url)
    const database = openDatabase(url, { timeoutMs: 20_000, applicationName: 'test' })
    t.teardown(async () => { await database.close() })
    return {
      url,
      database,
      check: async (keys: Keys) => { await check(database, keys) },
      store: async (count: number, { peppers, encryptionKeys }: Keys) => await database.run(async db => await storeSecrets(db, count, { peppers: createPeppers(peppers), ...encryptionKeys === undefined ? {} : { vault: createVault(encryptionKeys) } })),
      checks: async () => await database.run(async db => await db.execute<{ kind: string, id: string, value: string }>(sql`SELECT kind, id, value FROM key_checks ORDER BY kind DESC, id`)),
      run: async (command: Command, keys: Keys, args: Record<string, string> = {}, options: Record<string, boolean> = { yes: true }) => {
        const lines: string[] = []
        const err = new PassThrough()
        const context = { actor: { type: 'host', id: 'command-line', name: 'command-line' }, requestId: 'cmd_test' } as const
        const code = await command.run({ config: configFor(t, url, house.redis.url, keys), database, context, print: line => { lines.push(line) }, err }, { args, options })
        return { code, out: lines.join('\n'), err: String(err.read() ?? '') }
      }
    }
  }

  async function check (database: Database, { peppers, encryptionKeys }: Keys): Promise<void> {
    await database.transaction(async tx => { await checkKeysPresent(tx, encryptionKeys === undefined ? undefined : createVault(encryptionKeys), createPeppers(peppers)) })
  }

  await t.test('all keys are sealed, and there is one: another pepper under its id refuses the start, and leaves nothing behind', async t => {
    const { url, database, check, store, checks } = await start(t)
    const keys: Keys = { peppers: ringOf(pepper('1')), encryptionKeys: undefined }
    await check(keys)
    const [stored] = await store(1, keys)
    const recorded = await checks()
    await t.rejects(check({ ...keys, peppers: ringOf(pepper('1'), pepper('0')) }), like({ name: 'ConfigError', faults: [pepperIsNotRecorded] }))
    await t.rejects(check({ ...keys, peppers: ringOf(pepper('2'), pepper('1')) }), like({ faults: [previousIsNotRecorded] }))
    await t.rejects(startApp(t, configFor(t, url, house.redis.url, { peppers: ringOf(pepper('1')) })), like({ name: 'ConfigError', faults: [pepperIsNotRecorded] }), 'the service itself')
    t.strictSame(await checks(), recorded)
    await t.resolves(check(keys))
    t.ok(await database.run(async db => await lookUp(db, stored?.secret ?? '', createPeppers(keys.peppers))))
  })

  await t.test('one secret can be shown: another encryption key under its id refuses the start; none can any more: it takes the id\'s place', async t => {
    const { database, check, store, checks } = await start(t)
    const [keys, other]: [Keys, Keys] = [{ peppers: ringOf(pepper('1')), encryptionKeys: ringOf(key('1')) }, { peppers: ringOf(pepper('1')), encryptionKeys: ringOf(key('1')) }]
    const mixed = { ...keys, encryptionKeys: other.encryptionKeys }
    await check(keys)
    await store(1, keys)
    await t.rejects(check(mixed), like({ name: 'ConfigError', faults: [keyIsAnother] }))
    await t.rejects(check(other), like({ faults: [pepperIsNotRecorded, keyIsAnother] }), 'both are said at once: what nobody can decrypt says nothing of its pepper')
    await t.rejects(check({ ...other, encryptionKeys: keys.encryptionKeys }), like({ faults: [pepperIsAnother] }))
    await database.run(async db => await db.execute(sql`UPDATE secrets SET ciphertext = 'v1:1:x:y:z'`))
    await t.resolves(check(keys), 'a damaged ciphertext says nothing about a key that is the recorded one')
    await database.run(async db => await db.execute(sql`UPDATE secrets SET ciphertext = NULL, encryption_key_id = NULL`))
    await t.resolves(check(mixed))
    t.strictSame([...await checks()].map(({ value }) => value), valuesOf(mixed))
    await store(1, mixed)
    await t.rejects(check(keys), like({ faults: [keyIsAnother] }), 'and binds as the first one did')
  })

  await t.test('replicas that start at once on an empty database record one value; a new id adds one', async t => {
    const url = await house.database()
    const keys: Keys = { peppers: ringOf(pepper('1')), encryptionKeys: ringOf(key('1')) }
    const [{ parts: { database } }] = await Promise.all([1, 2, 3].map(async () => await startApp(t, configFor(t, url, house.redis.url, keys)))) as [Awaited<ReturnType<typeof startApp>>]
    const values = async () => (await database.run(async db => await db.execute<{ value: string }>(sql`SELECT value FROM key_checks ORDER BY kind DESC, id DESC`))).map(({ value }) => value)
    t.strictSame(await values(), valuesOf(keys))
    const more: Keys = { peppers: ringOf(pepper('2'), keys.peppers.current), encryptionKeys: ringOf(key('2'), ...keys.encryptionKeys === undefined ? [] : [keys.encryptionKeys.current]) }
    await Promise.all([1, 2, 3, 4, 5, 6].map(async () => { await check(database, more) }))
    t.strictSame(await values(), valuesOf(more), 'without the lock of the migration too')
    await t.resolves(check(database, keys), 'who does not know the new ids starts beside it')
    t.strictSame(await values(), valuesOf(more))
  })

  await t.test('stored data decide what is recorded: of a database without check values, and of one with wrong ones', async t => {
    const { database, check, store, checks } = await start(t)
    const [right, slip]: [Keys, Keys] = [{ peppers: ringOf(pepper('1')), encryptionKeys: ringOf(key('1')) }, { peppers: ringOf(pepper('1')), encryptionKeys: ringOf(key('1')) }]
    await store(5, right)
    await t.rejects(check(slip), like({ faults: [keyIsAnother] }), 'the first start after an upgrade, or with a restored backup')
    await t.rejects(check({ ...slip, encryptionKeys: right.encryptionKeys }), like({ faults: [pepperIsAnother] }))
    t.strictSame([...await checks()], [], 'nothing is recorded of them')
    await t.resolves(check(right))
    for (const { kind, id, value } of [...createPeppers(slip.peppers).checks, ...slip.encryptionKeys === undefined ? [] : createVault(slip.encryptionKeys).checks]) {
      await database.run(async db => await db.execute(sql`UPDATE key_checks SET value = ${value} WHERE kind = ${kind} AND id = ${id}`))
    }
    await database.run(async db => await db.execute(sql`UPDATE secrets SET ciphertext = 'v1:1:x:y:z' WHERE id IN (SELECT id FROM secrets LIMIT 2)`))
    await t.resolves(check(right), 'a wrong value was recorded; one that can be decrypted and digested is enough')
    t.strictSame([...await checks()].map(({ value }) => value), valuesOf(right))
    await t.rejects(check(slip), like({ faults: [pepperIsNotRecorded, keyIsAnother] }))
  })

  await t.test('sealed secrets of before there were check values are taken as they are found', async t => {
    const { check, store } = await start(t)
    const keys: Keys = { peppers: ringOf(pepper('1')), encryptionKeys: undefined }
    await store(1, keys)
    await check(keys)
    await t.rejects(check({ ...keys, peppers: ringOf(pepper('1')) }), like({ faults: [pepperIsNotRecorded] }))
  })

  await t.test('two replicas, another value each under a new id: the one that something is stored under is right, whichever was recorded', async t => {
    const { database, check, store, checks } = await start(t)
    const [pepper1, key1] = [pepper('1'), key('1')]
    const [first, second] = [1, 2].map(() => ({ peppers: ringOf(pepper('2'), pepper1), encryptionKeys: ringOf(key('2'), key1) })) as [Keys, Keys]
    await check({ peppers: ringOf(pepper1), encryptionKeys: ringOf(key1) })
    await check(first)
    await database.transaction(async tx => {
      if (first.encryptionKeys !== undefined) await storeSecrets(tx, 1, { peppers: createPeppers(first.peppers), vault: createVault(first.encryptionKeys) })
      await check(second) // on another connection, which does not see it, and is not held up by it
    })
    await t.resolves(check(first))
    t.same(new Set([...await checks()].map(({ value }) => value)), new Set(valuesOf(first)))
    await t.rejects(check(second), like({ faults: [/^KEYGATE_PEPPER is not the one that is recorded for the id "2"/, /^KEYGATE_ENCRYPTION_KEY with the id "2" decrypts nothing/] }))
    await t.rejects(check({ ...second, encryptionKeys: first.encryptionKeys }), like({ faults: [/^KEYGATE_PEPPER with the id "2" is not the one that stored secrets have/] }))
    await store(1, first)
  })

  await t.test('neither a start nor forget waits for a VACUUM of the secrets, nor holds anybody up behind it', async t => {
    const { url, check, checks, run } = await start(t)
    const keys: Keys = { peppers: ringOf(pepper('1')), encryptionKeys: ringOf(key('1'), key('0')) }
    const other: Keys = { peppers: ringOf(pepper('1')), encryptionKeys: ringOf(key('1'), key('0')) }
    await check(keys)
    const session = tablesOf(t, url)
    await session`BEGIN`
    await session`LOCK TABLE secrets, idempotency_keys IN SHARE UPDATE EXCLUSIVE MODE` // as VACUUM and CREATE INDEX CONCURRENTLY
    await t.resolves(check(other), 'nothing needs the old values')
    t.match(await run(encryptionKeyForget, other, { id: '0' }), { code: 0 })
    await session`COMMIT`
    t.strictSame([...await checks()].map(({ kind, id }) => `${kind} ${id}`), ['pepper 1', 'encryption-key 1'])
  })

  await t.test('after rewrap and forget the ids may come again with other values', async t => {
    const { check, store, checks, run } = await start(t)
    const old = { peppers: ringOf(pepper('1')), encryptionKeys: ringOf(key('1')) }
    const both: Keys = { peppers: ringOf(pepper('2'), old.peppers.current), encryptionKeys: ringOf(key('2'), old.encryptionKeys.current) }
    const again: Keys = { peppers: ringOf(pepper('1'), both.peppers.current), encryptionKeys: ringOf(key('1'), ...both.encryptionKeys === undefined ? [] : [both.encryptionKeys.current]) }
    await check(old)
    await store(2, old)
    await check(both)
    await t.rejects(run(secretsRewrap, again), like({ name: 'ConfigError', faults: [pepperIsNotRecorded, keyIsAnother] }), 'rewrap does not write under another value either')
    t.match(await run(secretsRewrap, both), { code: 0, out: /rewrapped +2\n/ })
    await t.resolves(check(again))
    await store(1, again)
    await t.rejects(check(both), like({ faults: [previousIsNotRecorded, previousKeyIsAnother] }))

    const lost: Keys = { ...again, encryptionKeys: ringOf(key('3')) }
    t.match(await run(encryptionKeyForget, lost, { id: '1' }), { code: 0, out: /^Forgotten: 1 secret and 0 answers/ })
    t.match(await run(encryptionKeyForget, lost, { id: '2' }), { code: 0, out: /^Forgotten: 2 secrets and 0 answers/ })
    t.strictSame([...await checks()].map(({ kind, id }) => `${kind} ${id}`), ['pepper 1', 'pepper 2'])
    await t.resolves(check({ ...again, encryptionKeys: ringOf(key('1')) }))
    t.match(await run(encryptionKeyForget, lost, { id: '1' }), { code: 0, out: /^Nothing is encrypted/ })
    t.strictSame([...await checks()].map(({ kind, id }) => `${kind} ${id}`), ['pepper 1', 'pepper 2'], 'nothing to drop: the check value goes none the less')
  })

  await t.test('a pepper that is lost: rewrap without it, then any text under its id is taken', async t => {
    const { database, check, store, run } = await start(t)
    const keys: Keys = { peppers: ringOf(pepper('1')), encryptionKeys: ringOf(key('1')) }
    const without: Keys = { ...keys, peppers: ringOf(pepper('2')) }
    const instead: Keys = { ...keys, peppers: ringOf(without.peppers.current, pepper('1')) }
    await check(keys)
    await store(1, keys)
    const [sealed] = await store(1, { ...keys, encryptionKeys: undefined })
    await t.rejects(check(instead), like({ faults: [previousIsAnother] }))
    t.match(await run(secretsRewrap, without), { code: 0, out: /rewrapped +1\n[^]*sealed under an old pepper.* 1$/ })
    await t.rejects(check(without), like({ faults: [/^KEYGATE_PREVIOUS_PEPPERS lacks the pepper "1", without which 1 secret/] }))
    await t.resolves(check(instead))
    const actions = await database.run(async db => await db.execute(sql`SELECT action, details FROM audit_events WHERE action = 'pepper.forget'`))
    t.strictSame([...actions], [{ action: 'pepper.forget', details: { pepperIds: ['1'] } }])

    const found: Keys = { ...keys, peppers: ringOf(without.peppers.current, keys.peppers.current) }
    await t.rejects(check(found), like({ faults: [previousIsNotRecorded] }), 'it is found again')
    t.match(await run(secretsRewrap, without), { code: 0 })
    await t.resolves(check(found))
    t.ok(await database.run(async db => await lookUp(db, sealed?.secret ?? '', createPeppers(found.peppers))))
  })

  await t.test('encryption-key forget: changes nothing without --yes, is refused while a service is connected, and says so when one wrote meanwhile', async t => {
    const { url, database, check, store, checks, run } = await start(t)
    const [keys, lost]: [Keys, Keys] = [{ peppers: ringOf(pepper('1')), encryptionKeys: ringOf(key('1')) }, { peppers: ringOf(pepper('1')), encryptionKeys: ringOf(key('2')) }]
    await check(keys)
    t.match(await run(encryptionKeyForget, lost, { id: '1' }, {}), { code: 0, out: /^Nothing is encrypted/ })
    t.strictSame([...await checks()].map(({ kind, id }) => `${kind} ${id}`), ['pepper 1', 'encryption-key 1'], 'its check value too stays without --yes')
    const [first, second] = await store(2, keys)
    if (first === undefined || second === undefined || keys.encryptionKeys === undefined) throw new Error('no secrets')
    const vault = createVault(keys.encryptionKeys)
    await database.run(async db => { await storeReplay(db, first, vault) })
    const stillThere = async () => await database.run(async db => (await db.execute(sql`SELECT 1 FROM secrets WHERE ciphertext IS NOT NULL`)).length)
    await t.rejects(run(encryptionKeyForget, keys, { id: '1' }), like({ message: /is the id of the current encryption key/ }))
    await t.rejects(run(encryptionKeyForget, lost, { id: '1' }, {}), like({ message: /^Under the key "1" are 2 secrets and 1 answer .* add --yes\./ }))
    const service = openDatabase(url)
    await service.run(async db => await db.execute(sql`SELECT 1`))
    await t.rejects(run(encryptionKeyForget, lost, { id: '1' }), like({ message: /^Key-service is connected to the database \(1 session\), and may have the key "1" as its current one\. Stop every replica .*KEYGATE_ENCRYPTION_KEY_ID, then add --even-if-running\.$/ }))
    t.equal(await stillThere(), 2, 'nothing was dropped')

    // A service that goes on writing: whenever secrets have been dropped, there is a new one.
    await database.run(async db => await db.execute(sql.raw(`
      CREATE FUNCTION write_on() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        UPDATE secrets SET ciphertext = 'v1:1:x:y:z', encryption_key_id = '1' WHERE id = '${second.secretId}';
        RETURN NULL;
      END $$`)))
    await database.run(async db => await db.execute(sql`CREATE TRIGGER write_on AFTER INSERT ON audit_events FOR EACH ROW WHEN (NEW.details->>'use' = 'secret') EXECUTE FUNCTION write_on()`))
    t.match(await run(encryptionKeyForget, lost, { id: '1' }, { yes: true, 'even-if-running': true }), { code: 1, out: 'Forgotten: 2 secrets and 1 answer kept for a repeated request.', err: /^Meanwhile more was encrypted under the key "1": / })
    t.strictSame([...await checks()].map(({ kind, id }) => `${kind} ${id}`), ['pepper 1', 'encryption-key 1'], 'its check value stays, because something needs it')
    await database.run(async db => await db.execute(sql`DROP TRIGGER write_on ON audit_events`))
    await service.close()
    while ((await house.admin`SELECT 1 FROM pg_stat_activity WHERE application_name = 'keygate-key-service' AND datname = ${new URL(url).pathname.slice(1)}`).length > 0); // the server takes a moment to see it
    await store(1, keys)
    t.match(await run(encryptionKeyForget, lost, { id: '1' }), { code: 0, out: /^Forgotten: 2 secrets and 0 answers/, err: '' }, 'none runs: a secret may just have been made')
    t.strictSame([...await checks()].map(({ kind }) => kind), ['pepper'])
  })

  await t.test('an answer that is too old to be repeated with its secret needs no key', async t => {
    const { database, check, store } = await start(t)
    const [keys, other]: [Keys, Keys] = [{ peppers: ringOf(pepper('1')), encryptionKeys: ringOf(key('1')) }, { peppers: ringOf(pepper('1')), encryptionKeys: ringOf(key('1')) }]
    const [stored] = await store(1, { ...keys, encryptionKeys: undefined })
    if (stored === undefined || keys.encryptionKeys === undefined) throw new Error('no secret')
    const vault = createVault(keys.encryptionKeys)
    await check(keys)
    await database.run(async db => { await storeReplay(db, stored, vault) })
    await t.rejects(check({ ...keys, encryptionKeys: undefined }), like({ faults: [/^KEYGATE_ENCRYPTION_KEY is missing, and 1 secret /] }))
    await t.rejects(check({ ...keys, encryptionKeys: other.encryptionKeys }), like({ faults: [keyIsAnother] }))
    await database.run(async db => await db.execute(sql`UPDATE idempotency_keys SET created_at = now() - interval '16 minutes'`))
    await t.resolves(check({ ...keys, encryptionKeys: undefined }))
    await t.resolves(check({ ...keys, encryptionKeys: ringOf(key('2')) }))
    await t.resolves(check({ ...keys, encryptionKeys: other.encryptionKeys }))
  })

  await t.test('what is left of a deleted project needs no pepper and no key', async t => {
    const { database, check, store, checks } = await start(t)
    const [keys, other]: [Keys, Keys] = [{ peppers: ringOf(pepper('1')), encryptionKeys: ringOf(key('1')) }, { peppers: ringOf(pepper('1')), encryptionKeys: ringOf(key('1')) }]
    const without: Keys = { peppers: ringOf(pepper('2')), encryptionKeys: ringOf(key('2')) }
    await check(keys)
    const [stored] = await store(3, keys)
    await store(1, { ...keys, encryptionKeys: undefined })
    if (stored === undefined || keys.encryptionKeys === undefined) throw new Error('no secret')
    const vault = createVault(keys.encryptionKeys)
    await database.run(async db => { await storeReplay(db, stored, vault) })
    await t.rejects(check(without), like({ faults: [/^KEYGATE_PREVIOUS_PEPPERS lacks the pepper "1", without which 4 secrets/, /^KEYGATE_PREVIOUS_ENCRYPTION_KEYS lacks the key "1", without which 4 secrets/] }))
    await database.run(async db => await db.execute(sql`UPDATE projects SET deleted_at = now() WHERE id = ${stored.projectId}`))
    await t.rejects(check(without), like({ faults: [/^KEYGATE_PREVIOUS_PEPPERS lacks the pepper "1", without which 1 secret /] }))
    t.strictSame(await database.run(async db => await findUnknownPeppers(db, createPeppers(without.peppers))), ['1'])
    await database.run(async db => await db.execute(sql`UPDATE projects SET deleted_at = now()`))
    await t.resolves(check(without))
    t.strictSame(await database.run(async db => await findUnknownPeppers(db, createPeppers(without.peppers))), [])
    await t.resolves(check(other), 'its ids may come again')
    t.same(new Set([...await checks()].map(({ value }) => value)), new Set([...valuesOf(other), ...valuesOf(without)]))
  })

  await t.test('a rotation takes its secrets before its answers, as everybody else: while it waits for the one it has not taken the other', async t => {
    const { url, database, store } = await start(t)
    const keys: Keys = { peppers: ringOf(pepper('1')), encryptionKeys: ringOf(key('1')) }
    const [stored] = await store(1, keys)
    if (stored === undefined || keys.encryptionKeys === undefined) throw new Error('no secret')
    const vault = createVault(keys.encryptionKeys)
    await database.run(async db => { await storeReplay(db, stored, vault) })
    const [session, watch] = [tablesOf(t, url), tablesOf(t, url)]
    const pid = await pidOf(session)
    await session`BEGIN`
    await session`SELECT 1 FROM secrets FOR UPDATE`
    const rotation = database.transaction(async tx => { await retireSecret(tx, stored, 60) })
    t.ok(await waiterFor(watch, pid, rotation))
    t.equal((await session`SELECT 1 FROM idempotency_keys FOR UPDATE SKIP LOCKED`).length, 1)
    await session`COMMIT`
    await rotation
    t.strictSame(await database.run(async db => [...await db.execute(sql`SELECT secret_ciphertext AS text FROM idempotency_keys`)]), [{ text: null }])
  })

  await t.test('what stands in the database is neither pepper nor key nor the digest of anything', async t => {
    const { database, check, store, checks } = await start(t)
    const keys: Keys = { peppers: ringOf(pepper('1')), encryptionKeys: ringOf(key('1')) }
    await check(keys)
    await store(50, keys)
    const everything = JSON.stringify([await checks(), await database.run(async db => await db.execute(sql`SELECT * FROM secrets`))])
    const encryptionKey = keys.encryptionKeys?.current.value ?? Buffer.alloc(0)
    const pepperValue = keys.peppers.current.value
    for (const value of [pepperValue, Buffer.from(pepperValue, 'base64').toString('base64url'), digestSecret(pepperValue), encryptionKey.toString('base64'), encryptionKey.toString('base64url'), encryptionKey.toString('hex')]) t.notOk(everything.includes(value))
    const [{ same } = { same: undefined }] = await database.run(async db => await db.execute<{ same: string }>(sql`SELECT count(*) AS same FROM key_checks JOIN secrets ON value = digest OR ciphertext LIKE '%' || value || '%'`))
    t.equal(Number(same), 0)
    const labels = [...createPeppers(keys.peppers).checks].map(({ value }) => value)
    for (const { kind, id } of await checks()) t.notOk(labels.includes(createPeppers(keys.peppers).current(digestSecret(JSON.stringify(['keygate key check v1', kind, id]))).digest), 'nor of its own label')
  })
})
