import { fork } from 'node:child_process'
import { once } from 'node:events'
import { PassThrough, type Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { digestSecret } from '@keygate/api-key'
import { sql } from 'drizzle-orm'
import Fastify from 'fastify'
import { test, type Test } from 'tap'
import { encryptionKeyForget } from '../src/cli/encryption-key-forget.ts'
import { runCommandLine } from '../src/cli/run.ts'
import { secretsRewrap } from '../src/cli/secrets-rewrap.ts'
import { openDatabase, type Database } from '../src/db/database.ts'
import { migrate } from '../src/db/migrate.ts'
import { checkKeysPresent } from '../src/vault/keys-present.ts'
import { createPepperUpkeep } from '../src/vault/pepper-upkeep.ts'
import { createPeppers } from '../src/vault/peppers.ts'
import { createVault } from '../src/vault/vault.ts'
import { startHouse } from './helper.ts'
import { lookUp, reveal, storeReplay, storeSecrets, type StoredSecret } from './stored-secrets.ts'

/** tap's type for an expected error knows none of our members. */
const like = (wanted: object): Error => wanted as Error

type Env = Record<string, string>
interface Ended { code: number | null, out: string, err: string }
interface Running { err: Readable, kill: () => void, ready: Promise<void>, ended: Promise<Ended> }

const commands = [secretsRewrap, encryptionKeyForget]

const key = (id: string) => ({ id, value: Buffer.alloc(32, `key ${id}`) })
const pepper = (id: string) => ({ id, value: `pepper ${id}`.repeat(4) })

/** The settings of a ring of keys and of peppers, the current one first; without keys everything is sealed. */
function ringsOf (keyIds: string[], pepperIds: string[]) {
  const [keys, peppers] = [keyIds.map(key), pepperIds.map(pepper)]
  const [[currentKey, ...previousKeys], [currentPepper = pepper('1'), ...previousPeppers]] = [keys, peppers]
  const env: Env = {
    KEYGATE_PEPPER: currentPepper.value,
    KEYGATE_PEPPER_ID: currentPepper.id,
    KEYGATE_PREVIOUS_PEPPERS: previousPeppers.map(({ id, value }) => `${id}:${value}`).join('\n'),
    ...currentKey === undefined
      ? {}
      : {
          KEYGATE_ENCRYPTION_KEY: currentKey.value.toString('base64'),
          KEYGATE_ENCRYPTION_KEY_ID: currentKey.id,
          KEYGATE_PREVIOUS_ENCRYPTION_KEYS: previousKeys.map(({ id, value }) => `${id}:${value.toString('base64')}`).join(',')
        }
  }
  return {
    env,
    peppers: createPeppers({ current: currentPepper, previous: previousPeppers }),
    vault: createVault({ current: currentKey ?? key('none'), previous: previousKeys })
  }
}

/** The command line in this process, which needs no compiling. */
async function call (args: string[], env: Env = {}): Promise<Ended> {
  const [out, err] = [new PassThrough(), new PassThrough()]
  const texts = Promise.all([text(out), text(err)])
  const code = await runCommandLine(commands, args, { env, out, err })
  out.end()
  err.end()
  const [outText, errText] = await texts
  return { code, out: outText, err: errText }
}

/** A program as it was built last, as a process with this environment and nothing else of ours. */
function begin (t: Test, program: 'cli' | 'server', args: string[], env: Env): Running {
  const inherited = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('KEYGATE_') && name !== 'NODE_OPTIONS'))
  const child = fork(fileURLToPath(new URL(`../dist/${program}.js`, import.meta.url)), args, { execArgv: [], env: { ...inherited, ...env }, stdio: ['ignore', 'pipe', 'pipe', 'ipc'] })
  t.teardown(() => { child.kill('SIGKILL') })
  const [out, err] = [child.stdout as Readable, child.stderr as Readable]
  return {
    err,
    kill: () => { child.kill('SIGKILL') },
    ready: once(child, 'message').then(() => {}),
    ended: Promise.all([once(child, 'exit'), text(out), text(err)]).then(([[code], out, err]) => ({ code, out, err }))
  }
}

test('help for all, and for each, without any settings', async t => {
  t.match(await begin(t, 'cli', ['--help'], {}).ended, { code: 0, err: '', out: /^Usage: node dist\/cli\.js <command>[^]*secrets rewrap +Encrypts[^]*encryption-key forget <id> +Drops/ }, 'the program itself')
  t.match(await call(['secrets', 'rewrap', '--help']), { code: 0, err: '', out: /^Usage: node dist\/cli\.js secrets rewrap\n[^]*--help/ })
  t.match(await call(['encryption-key', 'forget', '--help']), { code: 0, err: '', out: /forget <id> \[options\]\n[^]*--yes +do it[^]*--even-if-running +although/ })
})

test('what is not understood: 2, and a hint', async t => {
  t.match(await call([]), { code: 2, out: '', err: /^Usage: / })
  for (const [args, err] of [
    [['secret', 'rewrap'], /^There is no command "secret rewrap"\.\nSee: node dist\/cli\.js --help\n$/],
    [['--version'], /^There is no command "--version"/],
    [['secrets'], /^"secrets" wants another word: "secrets rewrap"\./],
    [['secrets', 'rewrap', '--fast'], /^Unknown option '--fast'\.\nSee: node dist\/cli\.js secrets rewrap --help\n$/],
    [['secrets', 'rewrap', 'all'], /^"secrets rewrap" takes no argument, but there is "all"\./],
    [['encryption-key', 'forget'], /^"encryption-key forget" wants <id>\./],
    [['encryption-key', 'forget', '1', '2'], /takes no argument after <id>, but there is "2"/],
    [['encryption-key', 'forget', '1', '--yes=no'], /^Option '--yes' does not take an argument\.\nSee/]
  ] as Array<[string[], RegExp]>) t.match(await call(args), { code: 2, out: '', err }, args.join(' '))
})

test('settings with faults: 78, all at once', async t => {
  t.match(await call(['secrets', 'rewrap'], { KEYGATE_PREVIOUS_PEPPERS: 'hunter2' }), {
    code: 78, out: '', err: /^(?![^]*hunter2)The configuration has \d faults:[^]*DATABASE_URL is missing[^]*KEYGATE_PREVIOUS_PEPPERS has no colon/
  })
})

test('commands on a database', async t => {
  const house = await startHouse(t)
  const others: Env = { REDIS_URL: house.redis.url, KEYGATE_APIS: fileURLToPath(new URL('fixtures/apis.yaml', import.meta.url)), KEYGATE_PORT: '0', LOG_LEVEL: 'silent' }

  async function start (t: Test) {
    const url = await house.database()
    await migrate(url)
    const database = openDatabase(url, { timeoutMs: 20_000, applicationName: 'test' })
    t.teardown(async () => { await database.close() })
    const store = async (count: number, rings: ReturnType<typeof ringsOf>, sealed = false) =>
      await database.run(async db => await storeSecrets(db, count, { peppers: rings.peppers, ...sealed ? {} : { vault: rings.vault } }))
    const envOf = ({ env }: ReturnType<typeof ringsOf>) => ({ ...others, DATABASE_URL: url, ...env })
    return {
      database,
      store,
      cli: async (args: string[], rings: ReturnType<typeof ringsOf>) => await call(args, envOf(rings)),
      child: (program: 'cli' | 'server', args: string[], rings: ReturnType<typeof ringsOf>) => begin(t, program, args, envOf(rings)),
      start: async ({ vault, peppers }: ReturnType<typeof ringsOf>) => { await database.transaction(async tx => { await checkKeysPresent(tx, vault, peppers) }) }
    }
  }

  const audit = async (database: Database) => await database.run(async db => await db.execute<{ action: string, actor: string, request: string, details: Record<string, number> }>(sql`
    SELECT action, actor_type || ' ' || actor_id || ' ' || actor_name AS actor, request_id AS request, details FROM audit_events ORDER BY id`))
  const idsOf = async (database: Database) => (await database.run(async db => await db.execute<{ ids: string }>(sql`
    SELECT DISTINCT coalesce(encryption_key_id, 'sealed') || ' ' || pepper_id AS ids FROM secrets UNION SELECT DISTINCT 'replay ' || encryption_key_id FROM idempotency_keys WHERE encryption_key_id IS NOT NULL ORDER BY ids`))).map(({ ids }) => ids)
  const works = async (database: Database, stored: StoredSecret[], { peppers }: ReturnType<typeof ringsOf>) => {
    for (const { secret, secretId } of stored) if ((await database.run(async db => await lookUp(db, secret, peppers)))?.id !== secretId) return false
    return true
  }

  await t.test('GX-22 key and pepper are replaced under load: no look-up and no reveal fails', async t => {
    const { database, store, cli, child } = await start(t)
    const [before, after] = [ringsOf(['1'], ['1']), ringsOf(['2', '1'], ['2', '1'])]
    const stored = await store(3200, before)
    const sealed = await store(40, before, true)
    for (const secret of stored.slice(0, 30)) await database.run(async db => { await storeReplay(db, secret, before.vault) })
    const upkeep = createPepperUpkeep({ database, peppers: after.peppers, log: Fastify({ logger: false }).log, intervalMs: 20 })

    const state = { working: true, done: 0, failures: [] as unknown[] }
    const load = async (offset: number): Promise<void> => {
      for (let i = offset; state.working; i = (i + 7) % stored.length) {
        const one = stored[i] as StoredSecret
        const found = await database.run(async db => await lookUp(db, one.secret, after.peppers))
        const shown = await database.run(async db => await reveal(db, one, after.vault))
        if (found?.id !== one.secretId || shown === 'sealed' || 'cannot' in shown || shown.plaintext !== one.secret) state.failures.push({ found, shown })
        if (found?.pepperId === '1') upkeep.note({ secretId: one.secretId, digest: digestSecret(one.secret) })
        state.done++
      }
    }
    const loops = [0, 1, 2, 3].map(load)
    const ended = await child('cli', ['secrets', 'rewrap'], after).ended
    state.working = false
    await Promise.all(loops)
    await upkeep.close()

    t.same(state.failures, [])
    t.ok(state.done > 0, `${state.done} look-ups and reveals meanwhile`)
    t.match(ended, { code: 0, out: /rewrapped +3230\n +already current +0\n[^]*not configured +0\n[^]*damaged +0\n[^]*sealed under an old pepper, move when they are used +40\n$/ })
    t.match(ended.err, /^0 of 3230 secrets\n[^]*3230 of 3230 secrets\n/, 'without a terminal: lines')
    t.same(await idsOf(database), ['2 2', 'replay 2', 'sealed 1'])
    t.ok(await works(database, [...stored.slice(0, 50), ...sealed], after))
    const [replay] = await database.run(async db => await db.execute<{ text: string }>(sql`SELECT secret_ciphertext AS text FROM idempotency_keys WHERE key_id = ${stored[0]?.keyId}`))
    t.strictSame(after.vault.decrypt(replay?.text ?? '', { projectId: stored[0]?.projectId ?? '', keyId: stored[0]?.keyId ?? '', use: 'replay' }), { plaintext: stored[0]?.secret })
    const entries = await audit(database)
    t.equal(entries.reduce((sum, { details }) => sum + (details['renewed'] ?? 0), 0), 3230, 'the audit trail has every one of them, once')
    t.ok(entries.every(({ action, actor }) => action === 'secrets.rewrap' && actor === 'host command-line command-line'))
    t.equal(new Set(entries.map(({ request }) => request)).size, 1, 'under one request id')
    t.match(await cli(['secrets', 'rewrap'], after), { code: 0, out: /rewrapped +0\n +already current +3230\n/ }, 'again: nothing to do')
    t.equal((await audit(database)).length, entries.length, 'and nothing to write down')
  })

  await t.test('GX-22 a rewrap that is killed goes on where it was', async t => {
    const { database, store, cli, child } = await start(t)
    const [before, after] = [ringsOf(['1'], ['1']), ringsOf(['2', '1'], ['2', '1'])]
    const stored = await store(2100, before)
    const killed = child('cli', ['secrets', 'rewrap'], after)
    const state = { ended: false }
    killed.ended.finally(() => { state.ended = true })
    while (!state.ended && (await audit(database)).length === 0);
    killed.kill()
    await killed.ended
    const ended = await cli(['secrets', 'rewrap'], after)
    t.equal(ended.code, 0)
    const entries = await audit(database)
    t.equal(entries.reduce((sum, { details }) => sum + (details['renewed'] ?? 0), 0), 2100)
    t.same(await idsOf(database), ['2 2'])
    t.ok(await works(database, stored.slice(0, 50), after))
  })

  await t.test('GX-22 a key that is sealed while rewrap has its secret in hand stays sealed', async t => {
    const { database, store, cli } = await start(t)
    const [before, after] = [ringsOf(['1'], ['1']), ringsOf(['2', '1'], ['1'])]
    const [one] = await store(3, before)
    if (one === undefined) throw new Error('no secret')
    const waits = async () => (await house.admin`SELECT 1 FROM pg_stat_activity WHERE usename = 'keygate' AND wait_event_type = 'Lock'`).length
    const ended = await database.transaction(async tx => {
      await tx.execute(sql`UPDATE secrets SET ciphertext = NULL, encryption_key_id = NULL WHERE id = ${one.secretId}`)
      const rewrap = cli(['secrets', 'rewrap'], after)
      while (await waits() === 0) await tx.execute(sql`SELECT 1`) // until it has read the ciphertext and waits to replace it; never idle for long
      return { rewrap }
    })
    t.match(await ended.rewrap, { code: 0, out: /rewrapped +2\n/, err: /2 of 3 secrets\n/ })
    t.strictSame(await database.run(async db => await reveal(db, one, after.vault)), 'sealed')
    t.same(await idsOf(database), ['2 1', 'sealed 1'])
  })

  await t.test('GX-22 the old key is dropped before the rewrap: the start is refused and names it; after the rewrap it starts', async t => {
    const { database, store, cli, child } = await start(t)
    const [before, both, dropped] = [ringsOf(['1'], ['1']), ringsOf(['2', '1'], ['2', '1']), ringsOf(['2'], ['2'])]
    const stored = await store(3, before)
    const refused = await child('server', [], dropped).ended
    t.equal(refused.code, 78)
    t.match(refused.err, /PREVIOUS_PEPPERS lacks the pepper "1", without which 3 secrets[^]*PREVIOUS_ENCRYPTION_KEYS lacks the key "1", without which 3 secrets[^]*encryption-key forget 1/)
    t.equal((await cli(['secrets', 'rewrap'], both)).code, 0)
    const server = child('server', [], dropped)
    await Promise.race([server.ready, server.ended.then(({ err }) => { throw new Error(err) })])
    t.ok(await works(database, stored, dropped))
  })

  await t.test('GX-22 a lost key costs only reveal: what is under it is forgotten, and the keys work on', async t => {
    const { database, store, cli, start: startUp } = await start(t)
    const [before, lost] = [ringsOf(['1'], ['1']), ringsOf(['2'], ['1'])]
    const stored = await store(700, before)
    const [replayed] = stored
    if (replayed !== undefined) await database.run(async db => { await storeReplay(db, replayed, before.vault) })
    const [kept] = await store(1, lost)
    await t.rejects(startUp(lost), like({ name: 'ConfigError', faults: [/KEYS lacks the key "1".*encryption-key forget 1;/] }))
    t.ok(await works(database, stored, lost), 'looking up never needs it')
    t.match(await cli(['secrets', 'rewrap'], lost), { code: 1, out: /rewrapped +0\n +already current +1\n[^]*not configured +701\n/, err: /key_\w+ of project [\w-]+: the key "1" is not configured\n[^]*and 681 more/ })

    t.match(await cli(['encryption-key', 'forget', '2'], lost), { code: 2, out: '', err: /"2" is the id of the current encryption key.*KEYGATE_ENCRYPTION_KEY_ID/ })
    t.match(await cli(['encryption-key', 'forget', '1'], lost), { code: 2, out: '', err: /^Under the key "1" are 700 secrets and 1 answer kept .* add --yes\./ })
    t.match(await cli(['encryption-key', 'forget', '1'], before), { code: 2, err: /current/ })
    t.match(await cli(['encryption-key', 'forget', '1'], ringsOf(['2', '1'], ['1'])), { code: 2, err: /^The key "1" is configured: "secrets rewrap" keeps what is under it\./ })
    t.same(await idsOf(database), ['1 1', '2 1', 'replay 1'], 'nothing was done yet')
    t.match(await cli(['encryption-key', 'forget', '1', '--yes'], lost), { code: 0, err: '', out: 'Forgotten: 700 secrets and 1 answer kept for a repeated request.\n' })
    t.match(await cli(['encryption-key', 'forget', '1', '--yes'], lost), { code: 0, err: '', out: 'Nothing is encrypted under the key "1".\n' })

    t.same(await idsOf(database), ['2 1', 'sealed 1'])
    t.ok(await works(database, stored, lost))
    const sealed = await database.run(async db => await db.execute<{ id: string }>(sql`SELECT id FROM keys WHERE sealed`))
    t.same(sealed.map(({ id }) => id).sort(), stored.map(({ keyId }) => keyId).sort(), 'their keys are sealed, no other')
    if (kept !== undefined) t.strictSame(await database.run(async db => await reveal(db, kept, lost.vault)), { plaintext: kept.secret })
    const entries = await audit(database)
    t.same(entries.map(({ action, details }) => [action, details['use'], details['dropped']]), [['encryptionKey.forget', 'secret', 500], ['encryptionKey.forget', 'secret', 200], ['encryptionKey.forget', 'replay', 1]])
    await t.resolves(startUp(lost), 'and the service starts')
  })

  await t.test('GX-22 a flipped bit in the database: that one cannot be shown, nothing else suffers, and rewrap names it', async t => {
    const { database, store, cli } = await start(t)
    const [before, after] = [ringsOf(['1'], ['1']), ringsOf(['2', '1'], ['2', '1'])]
    const stored = await store(4, before)
    const [hit, ...rest] = stored
    if (hit === undefined) throw new Error('no secret')
    const [row] = await database.run(async db => await db.execute<{ ciphertext: string }>(sql`SELECT ciphertext FROM secrets WHERE id = ${hit.secretId}`))
    const parts = (row?.ciphertext ?? '').split(':')
    const bytes = Buffer.from(parts[3] ?? '', 'base64url')
    bytes[5] = bytes.readUInt8(5) ^ 1
    await database.run(async db => await db.execute(sql`UPDATE secrets SET ciphertext = ${parts.with(3, bytes.toString('base64url')).join(':')} WHERE id = ${hit.secretId}`))
    t.strictSame(await database.run(async db => await reveal(db, hit, before.vault)), { cannot: 'damaged' })
    const ended = await cli(['secrets', 'rewrap'], after)
    t.match(ended, { code: 1, out: /rewrapped +3\n[^]*not configured +0\n[^]*damaged +1\n/ })
    t.ok(ended.err.includes(`${hit.keyId} of project ${hit.projectId}: damaged`))
    for (const one of rest) t.strictSame(await database.run(async db => await reveal(db, one, after.vault)), { plaintext: one.secret })
    t.ok(await works(database, stored, after), 'looking up works for all')
    t.same(await idsOf(database), ['1 1', '2 2'])
  })

  await t.test('no key, no database, an old schema: one sentence each', async t => {
    const { cli } = await start(t)
    const rings = ringsOf(['1'], ['1'])
    t.match(await cli(['secrets', 'rewrap'], ringsOf([], ['1'])), { code: 78, out: '', err: /KEYGATE_ENCRYPTION_KEY is missing/ })
    const env = { ...others, ...rings.env }
    t.match(await call(['secrets', 'rewrap'], { ...env, DATABASE_URL: 'postgres://keygate@127.0.0.1:1/x' }), { code: 1, out: '', err: /^PostgreSQL cannot be reached: .*\n$/ })
    t.match(await call(['secrets', 'rewrap'], { ...env, DATABASE_URL: await house.database() }), { code: 1, out: '', err: /^The database does not have the schema of this version: start key-service once, which makes it\.\n$/ })
  })
})
