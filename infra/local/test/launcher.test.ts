import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { delimiter, join } from 'node:path'
import t, { type Test } from 'tap'
import { startRedis } from '../src/index.ts'
import { readLocalRun, type LocalRun } from '../src/local-file.ts'
import { repoRoot } from '../src/root.ts'
import { descendants, isRunning, until } from './helper.ts'

const dist = join(repoRoot, 'infra/local/dist')
const npmStart = ['npm', 'start', '--silent']
const start = [process.execPath, join(dist, 'start.js')]
const demo = [process.execPath, join(dist, 'demo.js')]

interface Run {
  child: ChildProcess
  pid: number
  out: () => string
  err: () => string
  code: Promise<number | null>
  /** Fulfils when it printed the text; rejects when it ends before. */
  printed: (text: string) => Promise<void>
  /** Its children that run now, and theirs. */
  family: () => number[]
}

/** A program in a process group of its own, on a state folder of its own. */
function run (t: Test, [command = '', ...args]: string[], state: string, env: NodeJS.ProcessEnv = {}): Run {
  const child = spawn(command, args, {
    cwd: repoRoot,
    detached: true,
    env: { PATH: process.env['PATH'], HOME: process.env['HOME'], KEYGATE_STATE: state, ...env },
    stdio: ['ignore', 'pipe', 'pipe']
  })
  const pid = child.pid as number
  let out = ''
  let err = ''
  child.stdout?.on('data', chunk => { out += String(chunk) })
  child.stderr?.on('data', chunk => { err += String(chunk) })
  const code = once(child, 'close').then(([code]) => code as number | null)
  t.teardown(async () => {
    if (child.exitCode === null && child.signalCode === null) process.kill(-pid, 'SIGKILL')
    await code
  })
  return {
    child,
    pid,
    out: () => out,
    err: () => err,
    code,
    printed: async (text) => await Promise.race([
      until(`"${text}" in the output`, () => out.includes(text), 120_000),
      code.then(code => { if (!out.includes(text)) throw new Error(`ended with ${code} before it printed "${text}":\n${out}${err}`) })
    ]),
    family: () => descendants(pid)
  }
}

const tooOld = 'echo "Redis server v=6.2.0 sha=0"'

/** A search path on which small shell programs lie before the real ones. */
function pathWith (t: Test, programs: Record<string, string>): string {
  const dir = t.testdir({})
  for (const [name, text] of Object.entries(programs)) writeFileSync(join(dir, name), `#!/bin/sh\n${text}\n`, { mode: 0o755 })
  return `${dir}${delimiter}${process.env['PATH']}`
}

async function call (run: LocalRun, gateway: number, headers: Record<string, string>) {
  const answer = await fetch(`${run.gateways[gateway]}${run.example}`, { headers })
  await answer.arrayBuffer()
  return { status: answer.status, rateLimit: answer.headers.get('ratelimit') }
}

const basic = ({ projectId, secret }: LocalRun) => ({ authorization: `Basic ${Buffer.from(`${projectId}:${secret}`).toString('base64')}` })
const noStack = /\n\s+at .*:\d+:\d+/
const state = t.testdir({})

t.test('npm start: from nothing to the first call, the demo, and Ctrl-C', async t => {
  const first = run(t, npmStart, state)
  await first.printed('Stop:')
  const local = readLocalRun(state) as LocalRun
  t.strictSame(Object.keys(local).sort(), [
    'dashboard', 'example', 'gateways', 'keyId', 'keyService', 'operatorToken', 'postgres', 'projectId', 'redis', 'secret', 'upstream'
  ])
  t.equal(statSync(join(state, 'local.json')).mode & 0o777, 0o600)
  for (const text of [local.secret, local.projectId, ...local.gateways, `${local.keyService}/docs`]) t.match(first.out(), text)

  t.match(await call(local, 0, basic(local)), { status: 200, rateLimit: /^limit=120, remaining=119, reset=/ })
  t.match(await call(local, 1, { 'x-api-key': local.secret }), { status: 200, rateLimit: /^limit=120, remaining=118, reset=/ }, 'one limit for both gateways and both carriers')
  t.match(await call(local, 0, {}), { status: 401 })
  t.equal((await fetch(`${local.keyService}/docs`)).status, 200)

  const second = run(t, start, state)
  t.equal(await second.code, 1)
  t.match(second.err(), 'already running')
  t.match(second.err(), local.gateways[0])
  t.notMatch(second.err(), noStack)

  const demos = [run(t, demo, state), run(t, demo, state)].map(async one => ({ code: await one.code, out: one.out(), err: one.err() }))
  const told = await Promise.all(demos)
  for (const { code, err, out } of told) {
    t.strictSame({ code, err }, { code: 0, err: '' })
    t.match(out, '20 answered 200, 5 answered 429')
  }
  // On a machine on which 25 calls take longer than a second the demo says so, and the seconds in its headers differ.
  const slow = told.some(({ out }) => out.includes('so the seconds'))
  const table = (out = '') => slow ? out.replaceAll(/reset=\d+ *\d*|.*so the seconds.*\n/g, '') : out
  t.equal(table(told[0]?.out), table(told[1]?.out), 'both print the same')
  t.match(await call(local, 1, basic(local)), { status: 200, rateLimit: /remaining=117/ }, 'the key of local.json was not touched')

  const family = first.family()
  t.ok(family.length >= 6)
  process.kill(-first.pid, 'SIGINT') // the terminal's Ctrl-C
  process.kill(-first.pid, 'SIGINT') // and npm passing it on
  t.equal(await first.code, 0)
  t.strictSame(family.filter(isRunning), [])
  t.match(first.out(), 'Stopped.')
  t.equal(existsSync(join(state, 'lock')), false)
})

t.test('the next start keeps project and key; a taken port is said; SIGKILL leaves no orphan', async t => {
  const before = readLocalRun(state) as LocalRun
  const taken = createServer().listen({ port: 8080, host: '127.0.0.1' })
  await new Promise<void>(resolve => taken.once('listening', resolve).once('error', () => resolve())) // somebody else has it: as good
  t.teardown(() => taken.close())

  const second = run(t, start, state)
  await second.printed('Stop:')
  t.match(second.out(), 'Port 8080 is taken: gateway 1 uses ')
  t.match(second.out(), 'key of the earlier start')
  const local = readLocalRun(state) as LocalRun
  t.match(local, { projectId: before.projectId, keyId: before.keyId, secret: before.secret })
  t.match(await call(local, 0, basic(local)), { status: 200 })

  const family = second.family()
  process.kill(second.pid, 'SIGKILL')
  t.equal(await second.code, null)
  await until('all have ended', () => !family.some(isRunning))

  const missed = run(t, demo, state)
  t.equal(await missed.code, 1)
  t.match(missed.err(), 'npm start')
  t.notMatch(missed.err(), noStack)
})

t.test('after a SIGKILL it starts again, here with the Redis of REDIS_URL; a part that dies ends all, and is named', async t => {
  const redis = await startRedis()
  t.teardown(redis.stop)
  const before = readLocalRun(state) as LocalRun
  const third = run(t, start, state, { REDIS_URL: redis.url })
  await third.printed('Stop:')
  const local = readLocalRun(state) as LocalRun
  t.match(local, { redis: redis.url, secret: before.secret })
  t.match(await call(local, 1, basic(local)), { status: 200 })

  const family = third.family()
  const gateway = family.find(pid => readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('services/gateway'))
  process.kill(gateway as number, 'SIGKILL')
  t.equal(await third.code, 1)
  t.match(third.out(), /The gateway-[12] ended by itself; stopping the rest\..*logs\/gateway-[12]\.log/)
  t.strictSame(family.filter(isRunning), [])
  t.equal(isRunning(redis.pid), true, 'the Redis that is not ours still runs')
})

t.test('a key that was deleted meanwhile: a new one, said so', async t => {
  const before = readLocalRun(state) as LocalRun
  const fourth = run(t, start, state)
  await fourth.printed('Stop:')
  const { keyService, operatorToken } = readLocalRun(state) as LocalRun
  const headers = { authorization: `Bearer ${operatorToken}` }
  const gone = await fetch(`${keyService}/v1/projects/${before.projectId}/keys/${before.keyId}`, { method: 'DELETE', headers })
  t.ok(gone.status < 300, `deleted (${gone.status})`)
  process.kill(fourth.pid, 'SIGTERM')
  t.equal(await fourth.code, 0)

  const fifth = run(t, start, state)
  await fifth.printed('Stop:')
  t.match(fifth.out(), 'no longer answers')
  const local = readLocalRun(state) as LocalRun
  t.equal(local.projectId, before.projectId)
  t.not(local.secret, before.secret)
  t.match(await call(local, 0, basic(local)), { status: 200 })
  process.kill(fifth.pid, 'SIGTERM')
  t.equal(await fifth.code, 0)
})

t.test('told to stop while it starts', async t => {
  const early = run(t, start, join(state, 'early'))
  await early.printed('Starting PostgreSQL')
  await until('something was started', () => early.family().length > 0)
  const family = early.family()
  process.kill(early.pid, 'SIGTERM')
  t.equal(await early.code, 0)
  t.strictSame(family.filter(isRunning), [])
  t.notMatch(early.err(), noStack)
})

t.test('without any Redis: one gateway that counts alone, said so; the demo and Ctrl-C work', async t => {
  const PATH = pathWith(t, { 'redis-server': tooOld, 'valkey-server': tooOld, 'apt-get': 'exit 100' })
  const folder = join(state, 'no-redis')
  // a cache of its own: that of this clone holds a server from earlier
  const alone = run(t, npmStart, folder, { PATH, KEYGATE_CACHE: join(folder, 'cache') })
  await alone.printed('Stop:')
  for (const said of ['WITHOUT REDIS: one gateway', 'Nothing is shared', 'up to a second', 'sudo apt-get install -y redis-server', 'brew install redis', 'too old']) t.match(alone.out(), said)
  const local = readLocalRun(folder) as LocalRun
  t.match(local, { redis: null, gateways: { length: 1 } })
  t.equal(existsSync(join(folder, 'redis')), false)

  const answer = await fetch(`${local.gateways[0]}${local.example}`, { headers: basic(local) })
  t.equal(answer.status, 200)
  t.strictSame([...answer.headers.keys()].filter(name => /ratelimit/.test(name)), [], 'nothing claims a shared count')

  const told = run(t, demo, folder)
  t.strictSame({ code: await told.code, err: told.err() }, { code: 0, err: '' })
  t.match(told.out(), '20 answered 200, 5 answered 429')
  t.match(told.out(), /old secret, gateway 1: 401\n +refused after \d+\.\d s: without Redis/)
  t.match(told.out(), 'nothing was shared')
  t.notMatch(told.out(), /limit=|gateway 2|gateways in turn/)

  const family = alone.family()
  process.kill(-alone.pid, 'SIGINT')
  t.equal(await alone.code, 0)
  t.strictSame(family.filter(isRunning), [])
  t.equal(alone.err(), '')
})

t.test('a Redis that is there and does not work is an error, and nothing is left running', async t => {
  const folder = join(state, 'bad-redis')
  const PATH = pathWith(t, { 'redis-server': 'case $1 in --version) echo "Redis server v=7.4.0 sha=0";; *) echo "no memory for you"; exit 1;; esac' })
  const cases: Array<{ env: NodeJS.ProcessEnv, says: string }> = [
    { env: { PATH }, says: 'no memory for you' },
    { env: { REDIS_SERVER: join(folder, 'none') }, says: 'REDIS_SERVER names ' },
    { env: { REDIS_URL: 'redis://127.0.0.1:1' }, says: 'REDIS_URL is set, but redis://127.0.0.1:1 does not answer' }
  ]
  for (const { env, says } of cases) {
    const failed = run(t, start, folder, env)
    t.equal(await failed.code, 1)
    t.match(failed.err(), says)
    t.notMatch(failed.err(), noStack)
    t.notMatch(failed.out(), 'Stop:')
  }
})
