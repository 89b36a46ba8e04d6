import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, writeFileSync } from 'node:fs'
import { PassThrough } from 'node:stream'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { freePort } from '@keygate/local'
import postgres from 'postgres'
import { test, type Test } from 'tap'
import type { Command } from '../src/cli/command.ts'
import { peopleAdd } from '../src/cli/people-add.ts'
import { runCommandLine } from '../src/cli/run.ts'
import { secretsRewrap } from '../src/cli/secrets-rewrap.ts'
import { migrate } from '../src/db/migrate.ts'
import { seed } from '../src/seed/command.ts'
import { startHouse, type Sql } from './helper.ts'

interface Ended { code: number, out: string, err: string }

const settings = {
  KEYGATE_APIS: fileURLToPath(new URL('fixtures/apis.yaml', import.meta.url)),
  KEYGATE_PEPPER: 'a pepper for tests of 32 characters or more',
  KEYGATE_ENCRYPTION_KEY: Buffer.alloc(32, 'an encryption key for tests').toString('base64')
}

/** In this process, which needs no compiling. */
async function call (command: Command, args: string[], env: Record<string, string>): Promise<Ended> {
  const [out, err] = [new PassThrough(), new PassThrough()]
  const texts = Promise.all([text(out), text(err)])
  const code = await runCommandLine([command], args, { env, out, err })
  out.end()
  err.end()
  const [outText, errText] = await texts
  return { code, out: outText, err: errText }
}

test('PostgreSQL ends the session of a command: a sentence, 1, and the same command works afterwards', async t => {
  const house = await startHouse(t)
  const url = await house.database()
  await migrate(url)
  const env = { ...settings, DATABASE_URL: url, REDIS_URL: house.redis.url }
  const connect = (): Sql => {
    const client = postgres(url.replace('keygate@', 'postgres@'), { max: 1, onnotice: () => {} })
    t.teardown(async () => { await client.end({ timeout: 1 }) })
    return client
  }
  const [watcher, rival] = [connect(), connect()]

  for (const [command, args, table] of [
    [secretsRewrap, ['secrets', 'rewrap'], 'secrets'],
    [peopleAdd, ['people', 'add', '--email', 'ann@example.org', '--operator'], 'users'],
    [seed, ['seed', '--keys', '20'], 'keys']
  ] as Array<[Command, string[], string]>) {
    await t.test(args.join(' '), async t => {
      await rival`BEGIN`
      await rival`LOCK TABLE ${rival(table)}`
      const running = call(command, args, env)
      const kill = async () => await watcher`SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE usename = 'keygate' AND datname = current_database() AND wait_event_type = 'Lock'`
      while ((await kill()).length === 0);
      t.match(await running, { code: 1, out: '', err: /^(\n?After 0 whole keys:\n|0 of \d+ \w+\n)*PostgreSQL could not go on: the connection (to 127\.0\.0\.1:\d+ )?was lost\. Make sure that it runs, then run this again\.\n$/ })
      await rival`ROLLBACK`
      t.match(await call(command, args, env), { code: 0 })
    })
  }
})

/** `npm run seed` as a process, without `DATABASE_URL`; its state is that of a launcher. */
async function seedWith (state: string, args: string[] = []): Promise<Ended> {
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(KEYGATE_|DATABASE_URL|NODE_OPTIONS|INIT_CWD)/.test(name)))
  const child = execFile(process.execPath, [fileURLToPath(new URL('../dist/seed.js', import.meta.url)), ...args], { env: { ...env, KEYGATE_STATE: state } })
  if (child.stdout === null || child.stderr === null) throw new Error('there is no output')
  const [[code], out, err] = await Promise.all([once(child, 'exit'), text(child.stdout), text(child.stderr)])
  return { code, out, err }
}

const hint = /\nWithout DATABASE_URL this fills the system that `npm start` runs here: start that, and run this beside it\.\n$/

test('a seed where nothing runs names npm start', async (t: Test) => {
  const never = await seedWith(t.testdir())
  t.match(never, { code: 78, out: '', err: /DATABASE_URL is missing/ })
  t.match(never.err, hint, 'it has never run')

  const state = t.testdir()
  writeFileSync(`${state}/local.json`, JSON.stringify({ postgres: `postgres://keygate@127.0.0.1:${await freePort()}/keygate`, redis: null }))
  writeFileSync(`${state}/apis.yaml`, 'apis: []\n')
  mkdirSync(`${state}/secrets`)
  writeFileSync(`${state}/secrets/pepper`, settings.KEYGATE_PEPPER)
  const stopped = await seedWith(state)
  t.match(stopped, { code: 1, out: '', err: /^PostgreSQL cannot be reached: .*ECONNREFUSED/ })
  t.match(stopped.err, hint, 'it has run before')

  t.match(await seedWith(state, ['--help']), { code: 0, err: '' }, 'which needs nothing to run')
})
