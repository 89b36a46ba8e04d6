import { execFile } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { Writable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { startService } from '@keygate/local'
import t from 'tap'
import { runCommandLine } from '../src/cli.ts'
import { as, keys, openCatalogueHouse, responses, securitySchemes } from './catalogue-house.ts'
import { call, type Answer } from './house.ts'

const dir = t.testdir()
const house = await openCatalogueHouse(dir)
t.teardown(house.stop)
const { api, key, project } = house

interface Ran { code: number | null, out: string, err: string }

/** In this process, which saves the start of one. */
async function runHere (flags: string[], env: Record<string, string>): Promise<Ran> {
  const text = { out: '', err: '' }
  const into = (name: 'out' | 'err'): Writable => new Writable({ write (chunk, _encoding, done) { text[name] += String(chunk); done() } })
  const code = await runCommandLine(flags, { env, out: into('out'), err: into('err') })
  return { code, ...text }
}

const program = fileURLToPath(new URL('../dist/server.js', import.meta.url))

async function run (flags: string[], env: Record<string, string>): Promise<Ran> {
  return await new Promise(resolve => {
    execFile(process.execPath, [program, ...flags], { env }, (error, out, err) => { resolve({ code: error === null ? 0 : Number(error.code), out, err }) })
  })
}

const settings = (apis = house.stack.apisFile): Record<string, string> => ({
  KEYGATE_APIS: apis,
  KEYGATE_KEY_SERVICE_URL: house.stack.keyService.url,
  KEYGATE_SERVICE_TOKEN: house.stack.tokens.gateway,
  REDIS_URL: 'redis://127.0.0.1:1',
  KEYGATE_ALLOW_PRIVATE_UPSTREAM: 'true'
})

t.test('--check-config, --print-routes and --help', async t => {
  writeFileSync(`${dir}/reload.yaml`, `apis:${api('x', '\n    unlisted: maybe')}`)
  const { KEYGATE_SERVICE_TOKEN: token, KEYGATE_ALLOW_PRIVATE_UPSTREAM: allows, ...less } = settings(`${dir}/reload.yaml`)
  const [good, faulty, routes, unknown] = await Promise.all([
    run(['--check-config'], { ...settings(), KEYGATE_PROT: '1' }),
    run(['--check-config'], { ...less, KEYGATE_PORT: 'x' }),
    run(['--print-routes'], { KEYGATE_APIS: house.stack.apisFile }),
    run(['--chek-config'], settings())
  ])
  t.match(good, { code: 0, out: /^ok\n {2}main: \/main -> http:\/\/127\.0\.0\.1:\d+\/inner, 6 operations: 4 open to keys, 1 public, 1 open to no key\n/, err: /^KEYGATE_PROT is not a setting/ })
  t.match([faulty.code, faulty.out], [78, ''])
  t.match(faulty.err, /(?=.*KEYGATE_PORT must be integer)(?=.*KEYGATE_SERVICE_TOKEN is missing)(?=.*unlisted: must be "deny" or "forward", not "maybe")/s, 'settings and catalogue at once')
  t.match(await runHere(['--check-config'], { ...settings(), KEYGATE_ALLOW_PRIVATE_UPSTREAM: 'false' }), { code: 78, err: /apis\.yaml:4 apis\[0\]\.upstream: the upstream of "main" may not be called: 127\.0\.0\.1 is private/ })

  t.match([routes.code, routes.err], [0, ''])
  t.match(routes.out, /^GET +\/main\/forms\/\{formId\}\/files +files \(opt-in\) +key: Basic or x-api-key +default 1000\/3600s$/m)
  t.match(routes.out, /^any +\/loose\/\* +anyone, unchecked/m)
  t.match(routes.out, /^GET +\/main\/docs +anyone/m)
  t.match(await runHere(['--print-routes'], {}), { code: 78, out: '', err: /^KEYGATE_APIS is missing/ })
  t.match(await runHere(['--print-routes'], { KEYGATE_APIS: `${dir}/reload.yaml` }), { code: 78, out: '', err: /unlisted: must be/ })

  const help = await runHere(['--help'], {})
  t.match([help.code, help.err], [0, ''])
  const config = readFileSync(new URL('../src/config.ts', import.meta.url), 'utf8')
  for (const [, name = ''] of config.matchAll(/^ {2}([A-Z_]+): Type/gm)) t.match(help.out, `\n  ${name}`)
  t.match(help.out, /KEYGATE_PORT\n +port to listen on, 0 for a free one \(default: 8080\)\n/)
  t.match(unknown, { code: 64, out: '', err: /^"--chek-config" is not known\.\nSee: / })
  for (const [flags, said] of [[['x'], '"x" is not known.'], [['--help=1'], '"--help" takes no value.'], [['--help', '--print-routes'], 'Ask for one at a time.'], [['-x'], '"-x" is not known.']] as Array<[string[], string]>) {
    t.match(await runHere(flags, settings()), { code: 64, out: '', err: said })
  }
  t.match(await runHere([], settings()), { code: null, out: '', err: '' }, 'nothing is asked: it is to be run')
})

t.test('SIGHUP under a stream of requests: none is dropped or answered wrongly, a faulty document keeps the old one and says why', async t => {
  const writeDocument = (paths: object): void => {
    writeFileSync(`${dir}/reload.json`, JSON.stringify({ openapi: '3.0.3', info: { title: 'Reload', version: '1' }, security: keys, paths: { '/a': { get: { tags: ['forms'], responses } }, ...paths }, components: { securitySchemes } }))
  }
  writeDocument({})
  writeFileSync(`${dir}/reload.yaml`, `apis:${api('main', '\n    policies: [{ name: default, limit: 100000, window: 1h }]', 'reload')}`)
  const service = await startService('gateway', { ...settings(`${dir}/reload.yaml`), REDIS_URL: house.stack.redisUrl, KEYGATE_REFUSALS_LIMIT: '100000', KEYGATE_VERIFY_TIMEOUT_MS: '20000', KEYGATE_DRAIN_DELAY_MS: '0' })
  t.teardown(service.stop)
  const wrong: string[] = []
  const count = { a: 0, before: 0, after: 0 }
  let mayBeNew = false
  let isNew = false
  const stream = { goesOn: true }
  const loops = Array.from({ length: 6 }, async () => {
    while (stream.goesOn) {
      const mustBeNew = isNew
      const [a, b] = await Promise.all(['/main/a', '/main/b'].map(async path => await call(service.url, { path, headers: as(project, key.secret) }))) as [Answer, Answer]
      count.a++
      if (a.status !== 200 || a.body !== 'reached') wrong.push(`a: ${a.status} ${a.body}`)
      if (b.status === 200 && mayBeNew) { isNew = true; count.after++ } else if (b.status === 404 && !mustBeNew) count.before++
      else wrong.push(`b: ${b.status}, ${JSON.stringify({ mayBeNew, mustBeNew })}`)
    }
  }).map(async loop => { await loop.catch((error: Error) => { wrong.push(error.message) }) })
  const until = async (condition: () => boolean): Promise<void> => {
    const giveUp = Date.now() + 60_000
    while (!condition()) {
      if (Date.now() > giveUp) throw new Error(`it did not happen within a minute:\n${service.output()}`)
      await new Promise(resolve => setTimeout(resolve, 10))
    }
  }
  const some = async (): Promise<void> => { const from = count.a; await until(() => count.a >= from + 50 || wrong.length > 0) }

  await some()
  writeDocument({ '/b': { get: { tags: ['forms'] } } })
  process.kill(service.pid, 'SIGHUP')
  await until(() => service.output().includes('the new catalogue has a fault'))
  t.match(service.output(), /the old one stays/)
  t.match(service.output(), /must have required property 'responses'/, 'and why')
  await some()
  t.equal(count.after, 0)
  mayBeNew = true
  writeDocument({ '/b': { get: { tags: ['forms'], responses } } })
  process.kill(service.pid, 'SIGHUP')
  await until(() => isNew || wrong.length > 0)
  await some()
  for (let i = 0; i < 20; i++) process.kill(service.pid, 'SIGHUP')
  await some()
  stream.goesOn = false
  await Promise.all(loops)
  t.strictSame(wrong.slice(0, 10), [])
  t.match(service.output(), 'the catalogue was read anew')
  t.ok(count.before > 0 && count.after > 0, JSON.stringify(count))
  t.match(JSON.parse((await call(service.url, { path: '/main/openapi.json' })).body), { paths: { '/b': {} } }, 'the published document is the new one')
})
