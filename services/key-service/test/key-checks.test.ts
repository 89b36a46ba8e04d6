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
import { checkOf } from '../src/vault/check-values.ts'
import type { Ring } from '../src/vault/keyring.ts'
import { checkKeysPresent } from '../src/vault/keys-present.ts'
import { createPeppers } from '../src/vault/peppers.ts'
import { createVault } from '../src/vault/vault.ts'
import { configFor, startApp, startHouse } from './helper.ts'
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

const pepperIsAnother = /^KEYGATE_PEPPER is not the one that stored secrets have under the id "1": .*KEYGATE_PEPPER_ID and put the old one into KEYGATE_PREVIOUS_PEPPERS$/
const keyIsAnother = /^KEYGATE_ENCRYPTION_KEY is not the one that stored secrets have under the id "1": .*KEYGATE_ENCRYPTION_KEY_ID and put the old one into KEYGATE_PREVIOUS_ENCRYPTION_KEYS$/

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
    const database = openDatabase(url, { timeoutMs: 20_000 })
    t.teardown(async () => { await database.close() })
    return {
      url,
      database,
      check: async (keys: Keys) => { await check(database, keys) },
      store: async (count: number, { peppers, encryptionKeys }: Keys) => await database.run(async db => await storeSecrets(db, count, { peppers: createPeppers(peppers), ...encryptionKeys === undefined ? {} : { vault: createVault(encryptionKeys) } })),
      checks: async () => await database.run(async db => await db.execute<{ kind: string, id: string, value: string }>(sql`SELECT kind, id, value FROM key_checks ORDER BY kind DESC, id`)),
      run: async (command: Command, keys: Keys, args: Record<string, string> = {}) => {
        const lines: string[] = []
        const err = new PassThrough()
        const context = { actor: { type: 'host', id: 'command-line', name: 'command-line' }, requestId: 'cmd_test' } as const
        const code = await command.run({ config: configFor(t, url, house.redis.url, keys), database, context, print: line => { lines.push(line) }, err }, { args, options: { yes: true } })
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
    await t.rejects(check({ ...keys, peppers: ringOf(pepper('1'), pepper('0')) }), like({ name: 'ConfigError', faults: [pepperIsAnother] }))
    await t.rejects(check({ ...keys, peppers: ringOf(pepper('2'), pepper('1')) }), like({ faults: [/^KEYGATE_PREVIOUS_PEPPERS has under the id "1" another value than stored secrets have: put the old one back$/] }))
    await t.rejects(startApp(t, configFor(t, url, house.redis.url, { peppers: ringOf(pepper('1')) })), like({ name: 'ConfigError', faults: [pepperIsAnother] }), 'the service itself')
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
    await t.rejects(check(other), like({ faults: [pepperIsAnother, keyIsAnother] }), 'both are said at once')
    await database.run(async db => await db.execute(sql`UPDATE secrets SET ciphertext = 'v1:1:x:y:z'`))
    await t.resolves(check(keys), 'a damaged ciphertext says nothing about the key')
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

  await t.test('of two values for one new id at once, the one that something is stored under stands', async t => {
    const { database, check, store, checks } = await start(t)
    const [first, second] = [1, 2].map((): Keys => ({ peppers: ringOf(pepper('1')), encryptionKeys: undefined })) as [Keys, Keys]
    await check(first)
    const late = await database.transaction(async tx => {
      await storeSecrets(tx, 1, { peppers: createPeppers(first.peppers) })
      const started = check(second).then(() => 'started', (error: Error) => error.name)
      while ((await house.admin`SELECT 1 FROM pg_locks WHERE NOT granted AND mode = 'ShareLock' AND locktype = 'relation'`).length === 0) await tx.execute(sql`SELECT 1`) // until it waits for what is being stored; never idle for long
      return { started }
    })
    t.equal(await late.started, 'ConfigError', 'it waited for the transaction that stores the first one')
    t.strictSame([...await checks()].map(({ value }) => value), valuesOf(first))
    await store(1, first)
  })

  await t.test('what was stored before there were check values is taken as it is found', async t => {
    const { check, store } = await start(t)
    const keys: Keys = { peppers: ringOf(pepper('1')), encryptionKeys: ringOf(key('1')) }
    await store(1, keys)
    await check(keys)
    await t.rejects(check({ peppers: ringOf(pepper('1')), encryptionKeys: ringOf(key('1')) }), like({ faults: [pepperIsAnother, keyIsAnother] }))
  })

  await t.test('after rewrap and forget the ids may come again with other values', async t => {
    const { database, check, store, checks, run } = await start(t)
    const old = { peppers: ringOf(pepper('1')), encryptionKeys: ringOf(key('1')) }
    const both: Keys = { peppers: ringOf(pepper('2'), old.peppers.current), encryptionKeys: ringOf(key('2'), old.encryptionKeys.current) }
    const again: Keys = { peppers: ringOf(pepper('1'), both.peppers.current), encryptionKeys: ringOf(key('1'), ...both.encryptionKeys === undefined ? [] : [both.encryptionKeys.current]) }
    await check(old)
    await store(2, old)
    await check(both)
    await t.rejects(run(secretsRewrap, again), like({ name: 'ConfigError', faults: [pepperIsAnother, keyIsAnother] }), 'rewrap does not write under another value either')
    t.match(await run(secretsRewrap, both), { code: 0, out: /rewrapped +2\n/ })
    await t.resolves(check(again))
    await store(1, again)
    await t.rejects(check(both), like({ faults: [/^KEYGATE_PREVIOUS_PEPPERS has under the id "1" another/, /^KEYGATE_PREVIOUS_ENCRYPTION_KEYS has under the id "1" another/] }))

    const lost: Keys = { ...again, encryptionKeys: ringOf(key('3')) }
    await database.run(async db => await db.execute(sql`UPDATE secrets SET created_at = now() - interval '1 hour'`))
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
    await store(1, { ...keys, encryptionKeys: undefined })
    await t.rejects(check(instead), like({ faults: [/^KEYGATE_PREVIOUS_PEPPERS has under the id "1" another value .*: put the old one back$/] }))
    t.match(await run(secretsRewrap, without), { code: 0, out: /rewrapped +1\n[^]*sealed under an old pepper.* 1$/ })
    await t.rejects(check(without), like({ faults: [/^KEYGATE_PREVIOUS_PEPPERS lacks the pepper "1", without which 1 secret/] }))
    await t.resolves(check(instead))
    const actions = await database.run(async db => await db.execute(sql`SELECT action, details FROM audit_events WHERE action = 'pepper.forget'`))
    t.strictSame([...actions], [{ action: 'pepper.forget', details: { pepperIds: ['1'] } }])
  })

  await t.test('encryption-key forget: refused while a service encrypts under the key, and says so when one did meanwhile', async t => {
    const { database, check, store, checks, run } = await start(t)
    const [keys, lost]: [Keys, Keys] = [{ peppers: ringOf(pepper('1')), encryptionKeys: ringOf(key('1')) }, { peppers: ringOf(pepper('1')), encryptionKeys: ringOf(key('2')) }]
    await check(keys)
    const [first, second] = await store(2, keys)
    if (first === undefined || second === undefined || keys.encryptionKeys === undefined) throw new Error('no secrets')
    const vault = createVault(keys.encryptionKeys)
    const justMade = like({ message: /^A secret was made under the key "1" in the last 10 minutes: .*KEYGATE_ENCRYPTION_KEY_ID/ })
    await t.rejects(run(encryptionKeyForget, keys, { id: '1' }), like({ message: /is the id of the current encryption key/ }))
    await t.rejects(run(encryptionKeyForget, lost, { id: '1' }), justMade)
    await database.run(async db => await db.execute(sql`UPDATE secrets SET created_at = now() - interval '11 minutes'`))
    await database.run(async db => { await storeReplay(db, first, vault) })
    await t.rejects(run(encryptionKeyForget, lost, { id: '1' }), justMade, 'an answer tells it as well')
    t.ok(await database.run(async db => (await db.execute(sql`SELECT 1 FROM secrets WHERE ciphertext IS NOT NULL`)).length === 2), 'nothing was dropped')
    await database.run(async db => await db.execute(sql`UPDATE idempotency_keys SET created_at = now() - interval '11 minutes'`))

    // A service that goes on writing: whenever secrets have been dropped, there is a new one.
    await database.run(async db => await db.execute(sql.raw(`
      CREATE FUNCTION write_on() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        UPDATE secrets SET ciphertext = 'v1:1:x:y:z', encryption_key_id = '1' WHERE id = '${second.secretId}';
        RETURN NULL;
      END $$`)))
    await database.run(async db => await db.execute(sql`CREATE TRIGGER write_on AFTER INSERT ON audit_events FOR EACH ROW WHEN (NEW.details->>'use' = 'secret') EXECUTE FUNCTION write_on()`))
    t.match(await run(encryptionKeyForget, lost, { id: '1' }), { code: 1, out: 'Forgotten: 2 secrets and 1 answer kept for a repeated request.', err: /^Meanwhile more was encrypted under the key "1": / })
    t.strictSame([...await checks()].map(({ kind, id }) => `${kind} ${id}`), ['pepper 1', 'encryption-key 1'], 'its check value stays, because something needs it')
    await database.run(async db => await db.execute(sql`DROP TRIGGER write_on ON audit_events`))
    t.match(await run(encryptionKeyForget, lost, { id: '1' }), { code: 0, out: /^Forgotten: 1 secret and 0 answers/, err: '' })
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
