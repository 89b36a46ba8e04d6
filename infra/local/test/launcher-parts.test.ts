import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import t from 'tap'
import { localApis, resolveApis } from '../src/apis.ts'
import { alreadyRunning, banner } from '../src/banner.ts'
import { contradictions, type Call } from '../src/demo-story.ts'
import { allPermissions, freePort, LocalError, startRedis, startService } from '../src/index.ts'
import { readLocalRun, writeLocalRun } from '../src/local-file.ts'
import { takeLock } from '../src/lock.ts'
import { localPorts } from '../src/ports.ts'
import { checkRedisUrl } from '../src/redis-url.ts'
import { localSecrets } from '../src/secrets.ts'

const run = {
  keyService: 'http://127.0.0.1:8082',
  gateways: ['http://127.0.0.1:8080', 'http://127.0.0.1:8081'],
  upstream: 'http://127.0.0.1:4000',
  projectId: '5f1c2f6e-8d3a-4b7c-9a10-2e4d6b8f0a12',
  keyId: 'key_1',
  secret: 'kg_secret',
  operatorToken: 'kgs_token',
  dashboard: null,
  redis: 'redis://127.0.0.1:6379',
  postgres: 'postgres://postgres@127.0.0.1:5432/postgres',
  example: '/app/api/v1/forms/5f1c2f6e-8d3a-4b7c-9a10-2e4d6b8f0a12'
}

t.test('local.json: readable by its owner only, whole or not at all', async t => {
  const dir = t.testdir({})
  t.equal(readLocalRun(dir), undefined)
  writeLocalRun(run, dir)
  t.strictSame(readLocalRun(dir), run)
  t.equal(statSync(join(dir, 'local.json')).mode & 0o777, 0o600)
  t.strictSame(readdirSync(dir), ['local.json'], 'leaves nothing beside it')
  writeLocalRun({ ...run, redis: null }, dir)
  t.equal(readLocalRun(dir)?.redis, null, 'no Redis')
  writeFileSync(join(dir, 'local.json'), '{ "keyService": ')
  t.equal(readLocalRun(dir), undefined, 'damaged: as if there were none')
  writeFileSync(join(dir, 'local.json'), '{ "keyService": "http://127.0.0.1:1" }')
  t.equal(readLocalRun(dir), undefined, 'incomplete: as if there were none')
})

t.test('secrets are made once, private, and the operator has every permission', async t => {
  const dir = join(t.testdir({}), 'secrets')
  const made = localSecrets(dir)
  t.strictSame(localSecrets(dir), made)
  t.ok(readFileSync(made.pepperFile, 'utf8').trim().length >= 32)
  for (const file of [made.pepperFile, made.tokensFile]) t.equal(statSync(file).mode & 0o777, 0o600)
  for (const token of Object.values(made.tokens)) t.match(token, /^kgs_[\w-]{43}$/)
  t.strictSame(JSON.parse(readFileSync(made.tokensFile, 'utf8')), [
    { name: 'gateway', token: made.tokens.gateway, permissions: ['keys:verify'] },
    { name: 'operator', token: made.tokens.operator, permissions: [...allPermissions] }
  ])
  t.equal(new Set(allPermissions).size, 20)
  writeFileSync(made.tokensFile, '[]')
  t.throws(() => localSecrets(dir), { name: 'LocalError', message: /holds no token named operator/ })
})

t.test('the catalogue gets the real addresses and an absolute path', async t => {
  const text = resolveApis(localApis(), { gateway: 'http://127.0.0.1:18080', upstream: 'http://127.0.0.1:14000' })
  t.match(text, 'publicUrl: http://127.0.0.1:18080/app/api/v1')
  t.match(text, 'upstream: http://127.0.0.1:14000/app/api/v1')
  const document = JSON.parse(/openapi: (.*)/.exec(text)?.[1] ?? '') as string
  t.ok(existsSync(document), 'the document is there')
})

t.test('the lock: one holder; left behind by a killed process, or damaged, it is taken over', async t => {
  const file = join(t.testdir({}), 'state/lock')
  const lock = takeLock(file)
  t.strictSame(takeLock(file), { heldBy: process.pid })
  if (!('release' in lock)) return t.fail('not taken')
  lock.release()
  t.equal(existsSync(file), false)

  const gone = spawn(process.execPath, ['-e', ''])
  await once(gone, 'close')
  writeFileSync(file, JSON.stringify({ pid: gone.pid, start: '1' }))
  t.ok('release' in takeLock(file), 'its process is gone')
  writeFileSync(file, JSON.stringify({ pid: process.pid, start: 'another time' }))
  t.ok('release' in takeLock(file), 'its number belongs to another process by now')
  writeFileSync(file, 'damaged')
  t.ok('release' in takeLock(file))
  t.strictSame(readdirSync(join(t.testdirName, 'state')), ['lock'])
})

t.test('ports: a taken one is said, the others stay; the stores keep theirs', async t => {
  const taken = createServer().listen({ port: 8080, host: '127.0.0.1' })
  taken.on('error', () => {}) // somebody else has it already: as good
  await Promise.race([once(taken, 'listening'), new Promise(resolve => taken.once('error', resolve))])
  t.teardown(() => taken.close())
  const said: string[] = []
  const before = await freePort()
  const ports = await localPorts({ ...run, redis: `redis://127.0.0.1:${before}`, postgres: 'not a url' }, line => said.push(line))
  t.ok(ports.gateways[0] > 8082, 'the next free port that is nobody\'s own')
  t.ok(said.includes(`Port 8080 is taken: gateway 1 uses ${ports.gateways[0]}.`))
  const all = [...ports.gateways, ports.keyService, ports.upstream, ports.postgres, ports.redis]
  t.equal(new Set(all).size, 6)
  t.equal(ports.redis, before)

  said.length = 0
  const alone = await localPorts({ ...run, redis: `redis://127.0.0.1:${before}` }, line => said.push(line), false)
  t.equal(alone.gateways.length, 1)
  t.notMatch(said.join('\n'), 'gateway 2', 'of whom there is none, nothing is said')
  t.not(alone.redis, before, 'without Redis: not where one was')
})

t.test('REDIS_URL: answers, or a message without the password', async t => {
  const redis = await startRedis()
  t.teardown(redis.stop)
  await checkRedisUrl(redis.url)
  await redis.kill()
  const gone = checkRedisUrl(`redis://:hidden@127.0.0.1:${redis.port}`)
  await t.rejects(gone, { name: 'LocalError', message: /REDIS_URL is set, but .* does not answer/ })
  t.notMatch(await gone.catch(String), 'hidden')
  await t.rejects(checkRedisUrl('localhost'), { name: 'LocalError', message: /not a URL/ })
  await t.rejects(checkRedisUrl('http://127.0.0.1'), { name: 'LocalError', message: /redis:\/\// })
})

t.test('what is printed can be pasted', async t => {
  const text = banner(run, 'made', join(t.testdirName, '.keygate'))
  t.match(text, `curl -i -u ${run.projectId}:${run.secret} ${run.gateways[0]}${run.example}\n`)
  t.match(text, `curl -i -H 'X-API-Key: ${run.secret}' ${run.gateways[1]}${run.example}\n`)
  t.match(text, `${run.keyService}/docs`)
  t.match(banner(run, 'replaced', '/x'), 'no longer answers')
  t.notMatch(text, /without redis/i)
  const alone = banner({ ...run, gateways: run.gateways.slice(0, 1), redis: null }, 'made', '/x')
  for (const part of [/WITHOUT REDIS: one gateway/, /Nothing is shared/, /up to a second/, /apt-get install -y redis-server/, `X-API-Key: ${run.secret}' ${run.gateways[0]}${run.example}\n`]) t.match(alone, part)
  t.notMatch(alone, /undefined|one limit, 120|8081/)
  const second = alreadyRunning(77, run)
  for (const part of ['77', run.keyService, ...run.gateways]) t.match(second, part)
})

t.test('the demo tells a story that held from one that did not', async t => {
  const calls = (statuses: number[]): Call[] => statuses.map((status, index) => ({ gateway: index % 2 + 1, status, rateLimit: '', retryAfter: '' }))
  const held = {
    calls: calls([...Array<number>(20).fill(200), ...Array<number>(5).fill(429)]),
    milliseconds: 1,
    lagMilliseconds: null,
    oldSecret: calls([401, 401]),
    newSecret: calls([429, 429])
  }
  t.strictSame(contradictions(held), [])
  t.match(contradictions({ ...held, calls: calls(Array<number>(25).fill(200)) }), { length: 5 })
  t.strictSame(contradictions({ ...held, oldSecret: calls([401, 200]) }), ['the old secret on gateway 2: expected 401, got 200'])
})

t.test('a service that ends before it is ready: its last words, no stack of ours', async t => {
  const room = t.testdir({})
  mkdirSync(room, { recursive: true })
  const preload = `data:text/javascript,${encodeURIComponent('console.error("no configuration"); process.exit(3)')}`
  const failed = startService('upstream', {}, { nodeArgs: ['--import', preload], logFile: join(room, 'upstream.log') })
  await t.rejects(failed, LocalError)
  await t.rejects(failed, { message: /upstream ended with code 3 before it was ready:\n {2}no configuration/ })
  await t.rejects(startService('upstream', {}, { nodeArgs: ['--import', preload] }), { message: /no configuration/ }, 'without a log file too')
  t.match(readFileSync(join(room, 'upstream.log'), 'utf8'), 'no configuration')
})

t.test('a service gets the variables it is given, and nothing else of ours', async t => {
  process.env['KEYGATE_TEST_LEAK'] = 'leaked'
  t.teardown(() => { delete process.env['KEYGATE_TEST_LEAK'] })
  const preload = `data:text/javascript,${encodeURIComponent('console.log(JSON.stringify(process.env)); process.exit(0)')}`
  const failed = startService('upstream', { KEYGATE_GIVEN: 'yes' }, { nodeArgs: ['--import', preload] })
  const said = await failed.catch(String)
  t.match(said, '"KEYGATE_GIVEN":"yes"')
  t.notMatch(said, 'leaked')
})

t.test('the upstream starts, answers, and ends in order or with a kill', async t => {
  const service = await startService('upstream', {})
  t.teardown(service.stop)
  t.match(service.url, /^http:\/\/127\.0\.0\.1:\d+$/)
  t.equal((await fetch(`${service.url}/app/api/v1/status`)).status, 200)
  await service.stop()
  t.equal(await service.exited, 0)
  const other = await startService('upstream', {})
  t.teardown(other.stop)
  await other.kill()
  t.equal(await other.exited, null)
})
