import { digestSecret } from '@keygate/api-key'
import { test } from 'tap'
import { secretsRewrap } from '../src/cli/secrets-rewrap.ts'
import { configFor, redisIsReady, startApp, startHouse, type TestApp } from './helper.ts'
import { onHost, tablesOf } from './people-helper.ts'

const [pepper1, pepper2] = [{ id: '1', value: 'a first pepper of 32 characters or more' }, { id: '2', value: 'a second pepper of 32 characters or more' }]
const [key1, key2] = [{ id: '1', value: Buffer.alloc(32, 'a first encryption key') }, { id: '2', value: Buffer.alloc(32, 'a second encryption key') }]

/** Every secret so often, at least, while both are replaced. */
const rounds = 2
const count = 8

interface Made { keyId: string, secret: string }

test('GX-22 key and pepper are replaced replica by replica, under load: no verification and no reveal fails', async t => {
  const house = await startHouse(t)
  const url = await house.database()
  const sql = tablesOf(t, url)
  const start = async (peppers: { current: typeof pepper1, previous: Array<typeof pepper1> }, encryptionKeys: { current: typeof key1, previous: Array<typeof key1> }) => {
    const config = configFor(t, url, house.redis.url, { peppers, encryptionKeys })
    const app = await startApp(t, config)
    await redisIsReady(app)
    return { ...app, config }
  }
  const before = await start({ current: pepper1, previous: [] }, { current: key1, previous: [] })
  const projectId = (await before.call('POST', '/projects', { name: 'P' })).body.id as string
  const keys = `/projects/${projectId}/keys`
  const create = async ({ call }: TestApp): Promise<Made> => {
    const { status, body, text } = await call('POST', keys, { name: 'K' })
    if (status !== 201) throw new Error(`no key was made: ${text}`)
    return { keyId: body.id, secret: body.secret }
  }
  const made = await Promise.all(Array.from({ length: count }, async () => await create(before)))

  const failures: string[] = []
  /** What a gateway and an owner ask a replica. */
  async function use ({ call }: TestApp, { keyId, secret }: Made): Promise<void> {
    const found = await call('POST', '/verifications', { digest: digestSecret(secret) })
    if (found.status !== 200 || found.body.outcome !== 'found' || found.body.record.keyId !== keyId) failures.push(`verification: ${found.text}`)
    const shown = await call('POST', `${keys}/${keyId}/reveal`, { reason: 'a test of it' })
    if (shown.status !== 200 || shown.body.secret !== secret) failures.push(`reveal: ${shown.status} ${shown.body.code}`)
  }

  /** Both are used until the work is done, each secret `rounds` times at least on each. */
  async function underLoad<T> (replicas: TestApp[], work: () => Promise<T>): Promise<T> {
    const state = { isWorking: true }
    const loops = replicas.map(async replica => {
      for (let round = 0; round < rounds || state.isWorking; round++) for (const one of made) await use(replica, one)
    })
    try {
      return await work()
    } finally {
      state.isWorking = false
      await Promise.all(loops)
    }
  }
  const idsOf = async () => (await sql`SELECT DISTINCT pepper_id AS pepper, encryption_key_id AS key FROM secrets ORDER BY 1, 2`).map(({ pepper, key }) => `${pepper} ${key}`)

  // First every replica learns the new ones, and goes on with the old: what either makes, both know.
  const knowing = await underLoad([before], async () => await start({ current: pepper1, previous: [pepper2] }, { current: key1, previous: [key2] }))
  made.push(await create(knowing))
  t.same(await idsOf(), ['1 1'])

  // Then one after the other begins to use them.
  const after = await underLoad([knowing, before], async () => await start({ current: pepper2, previous: [pepper1] }, { current: key2, previous: [key1] }))
  t.equal(failures.length, 0, 'while the new configuration starts', { failures: failures.slice(0, 3) })
  made.push(await create(after))
  t.ok((await idsOf()).includes('2 2'), 'the new replica stores under the new ones')

  const printed = await underLoad([knowing, after], async () => await onHost(after, after.config, secretsRewrap, {}))
  t.equal(failures.length, 0, 'while everything is encrypted anew', { failures: failures.slice(0, 3) })
  t.match(printed, new RegExp(`rewrapped +${made.length - 1}\\n`))
  made.push(await create(knowing), await create(after))
  t.same((await idsOf()).filter(ids => ids.startsWith('1')), ['1 1'], 'the replica of the old configuration still stores under the old ones')

  await underLoad([knowing, after], async () => {})
  t.equal(failures.length, 0, 'what either has made works on both', { failures: failures.slice(0, 3) })

  // Only the new one is left; what the old one made last is moved, and then the old ones can go.
  // The others have ended with all that they had still to write: what they found under the new pepper, they move to theirs.
  await Promise.all([before.app.close(), knowing.app.close()])
  await onHost(after, after.config, secretsRewrap, {})
  await underLoad([after], async () => {})
  await after.app.close()
  t.same(await idsOf(), ['2 2'], 'nothing stands under the old ones, whoever was used')
  const last = await start({ current: pepper2, previous: [] }, { current: key2, previous: [] })
  await underLoad([last], async () => {})
  t.same(failures, [])
})
