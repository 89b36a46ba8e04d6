import { execFile } from 'node:child_process'
import { EventEmitter, once } from 'node:events'
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { createRegistry } from '@keygate/service-kit'
import type { FastifyBaseLogger } from 'fastify'
import t, { type Test } from 'tap'
import { buildApp } from '../src/app.ts'
import { readConfig } from '../src/config.ts'
import { createMetrics } from '../src/metrics.ts'
import { LiveCatalogue, type LiveCatalogueOptions } from '../src/routing/live-catalogue.ts'
import { readerFlags } from '../src/routing/load-apart.ts'
import { loadHere } from '../src/routing/loaded-catalogue.ts'
import { reloader } from '../src/routing/reload.ts'
import { RoutingTable } from '../src/routing/table.ts'
import { upstreamFaults } from '../src/routing/upstream-faults.ts'
import { basicOf, call, openGatewayHouse } from './house.ts'

const responses = { 200: { description: 'OK' } }

/** A document of so many operations below `/items`, and of those named. It is about as long as real ones are. */
function documentOf (count: number, names: string[] = [], more: object = {}): string {
  const operation = (id: string): object => ({ operationId: id, tags: ['items'], summary: `What ${id} is for`, responses })
  const paths = Object.fromEntries([
    ...names.map(name => [`/${name}`, { get: operation(name) }]),
    ...Array.from({ length: count }, (_, i) => [`/items/{item}/part-${i}`, { parameters: [{ $ref: '#/components/parameters/item' }], get: operation(`get${i}`) }])
  ])
  const parameters = { item: { name: 'item', in: 'path', required: true, schema: { type: 'string' } } }
  return JSON.stringify({ openapi: '3.0.3', info: { title: 'Items', version: '1' }, security: [{ basic: [] }], paths, components: { parameters, securitySchemes: { basic: { type: 'http', scheme: 'basic' } } }, ...more })
}

const dir = t.testdir({ 'reload.json': '', 'reload.yaml': '' })
const write = (document: string): void => { writeFileSync(`${dir}/reload.json`, document) }
const writeApi = (upstream: string, document = './reload.json'): void => {
  writeFileSync(`${dir}/reload.yaml`, `apis: [{ name: main, prefix: /main, upstream: "${upstream}", openapi: "${document}", policies: [{ name: default, limit: 100000, window: 1h }] }]`)
}
const file = `${dir}/reload.yaml`
/** As it is built: the sources would be compiled anew by each reader. */
const program = { file: fileURLToPath(new URL('../dist/routing/catalogue-reader.js', import.meta.url)), execArgv: [] }
const reader = { program }
const open = async (options: Partial<LiveCatalogueOptions> = {}): Promise<LiveCatalogue> => {
  writeApi('http://127.0.0.1:4000')
  write(documentOf(1, ['old']))
  return await LiveCatalogue.open({ file, reader, ...options })
}
const kindOf = (live: LiveCatalogue, path: string): string | undefined => live.table.match('GET', path)?.target.kind

/** How many turns the event loop takes until something has ended, without keeping a processor busy. */
async function turnsDuring (work: Promise<unknown>): Promise<number> {
  const state = { isDone: false }
  const done = work.finally(() => { state.isDone = true })
  let turns = 0
  for (; !state.isDone; turns++) await setTimeout(1)
  await done
  return turns
}

t.test('the event loop turns while a document of 1000 operations is read, unlike when it is read in this process', async t => {
  const live = await open()
  write(documentOf(1000, ['new']))
  const here = await turnsDuring(loadHere(file))
  const apart = await turnsDuring(live.reload())
  t.comment(`${here} turns while it is read here, ${apart} while it is read apart`)
  t.ok(apart > 5 * here, `${apart} > 5 * ${here}`)
  t.equal(live.table.catalogue.apis[0]?.operations.length, 1001)
  const { catalogue: { apis: [expected] }, published: [texts] } = await loadHere(file)
  t.strictSame(live.table.catalogue.apis[0], expected, 'what was handed over is what this process reads')
  t.strictSame(live.textsOf(live.table.catalogue.apis[0]!), JSON.parse(JSON.stringify(texts), revived), 'and so are document and page')
  t.throws(() => { live.table.catalogue.apis[0]!.operations[0]!.scopes.push('more') }, TypeError, 'frozen as well')
})

/** Buffers as JSON writes them. */
function revived (_: string, value: unknown): unknown {
  return value !== null && typeof value === 'object' && (value as { type?: string }).type === 'Buffer' ? Buffer.from((value as { data: number[] }).data) : value
}

t.test('a table made in slices matches as one made at once', async t => {
  write(documentOf(300, ['new']))
  const { catalogue } = await loadHere(file)
  const sliced = RoutingTable.inSlices(catalogue)
  const turns = await turnsDuring(sliced)
  t.ok(turns > 1, `${turns} turns`)
  const whole = new RoutingTable(catalogue)
  for (const path of ['/main/new', '/main/items/7/part-299', '/main/items/7/part-300', '/main/docs', '/main/openapi.json', '/main/none']) {
    for (const method of ['GET', 'HEAD', 'OPTIONS', 'POST']) t.strictSame((await sliced).match(method, path), whole.match(method, path), `${method} ${path}`)
  }
})

t.test('B4-06 a faulty catalogue leaves the old one in force and says why', async t => {
  const live = await open({ check: upstreamFaults({ KEYGATE_ALLOW_PRIVATE_UPSTREAM: false }) }).catch((error: Error) => error)
  t.match((live as Error).message, /127\.0\.0\.1 is private/, 'the same check as at the start')
  const checked = await open({ check: ({ apis }) => apis.filter(({ upstream }) => upstream.includes('forbidden')).map(({ name }) => `${name} may not be called`) })
  const table = checked.table
  const cases: Array<[() => void, RegExp]> = [
    [() => { write('{"openapi":\n"3.0.3"}}') }, /reload\.json:2:\d+: not valid YAML/],
    [() => { write(documentOf(2, ['old'], { security: [{ nobody: [] }] })) }, /reload\.json:1 security\[0\]\.nobody: names a scheme/],
    [() => { write(documentOf(1).replace('"get":', '"get":{},"get":')) }, /reload\.json:1:\d+: the same key is written twice/],
    [() => { write(documentOf(1, ['new'])); writeApi('http://forbidden.example') }, /main may not be called/],
    [() => { writeFileSync(file, 'apis: [{ openapi: ./none.json }]') }, /none\.json" cannot be read: there is no such file/]
  ]
  for (const [change, reason] of cases) {
    change()
    const error = await checked.reload().then(() => undefined, (error: Error) => error)
    t.match(error, { name: 'CatalogueError', message: reason, faults: [String] })
    t.equal(checked.table, table)
  }
  t.equal(kindOf(checked, '/main/old'), 'operation')
  t.ok(checked.textsOf(table.catalogue.apis[0]!).docs.body.length > 0)
  writeApi('http://127.0.0.1:4000')
  await checked.reload()
  t.match([kindOf(checked, '/main/old'), kindOf(checked, '/main/new')], [undefined, 'operation'], 'mended, it is taken')
  t.ok(checked.textsOf(table.catalogue.apis[0]!).docs.body.length > 0, 'a request that was matched before can still be answered')
})

/** Where a document can be asked for. */
async function serve (t: Test, listener: RequestListener): Promise<string> {
  const server = createServer(listener)
  await new Promise<void>(resolve => { server.listen(0, '127.0.0.1', resolve) })
  t.teardown(() => { server.close(); server.closeAllConnections() })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

t.test('who asks during a reading shares the next one, which sees what was written by then', async t => {
  const live = await open()
  const asked = new EventEmitter()
  let count = 0
  let answer = (): void => {}
  const url = await serve(t, (_request, response) => {
    const names = [[], ['first'], ['second'], [], ['fourth']][++count]
    answer = () => { response.end(names?.length === 0 ? '{' : documentOf(1, names)) }
    asked.emit('request')
  })
  writeApi('http://127.0.0.1:4000', url)
  const reading = async (): Promise<unknown> => await once(asked, 'request')

  const [first] = [live.reload(), await reading()]
  const [second, third] = [live.reload(), live.reload()]
  t.equal(second, third)
  t.not(first, second)
  let next = reading()
  answer()
  await first
  t.equal(kindOf(live, '/main/first'), 'operation')
  await next
  const faulty = live.reload()
  t.not(second, faulty)
  next = reading()
  answer()
  await second
  t.equal(kindOf(live, '/main/second'), 'operation')
  await next
  const fourth = live.reload()
  next = reading()
  answer()
  await t.rejects(faulty, { name: 'CatalogueError' })
  t.equal(kindOf(live, '/main/second'), 'operation')
  await next
  answer()
  await fourth
  t.equal(kindOf(live, '/main/fourth'), 'operation', 'a faulty one keeps no other from being read')
  t.equal(count, 4)
})

t.test('a reader that dies or is late is a refused catalogue with a reason, and harms nothing', async t => {
  const small = await open({ reader: { program, maxHeapMb: 32 } })
  // JSON.parse cannot be stopped: a thread would take its whole process with it.
  write(`{"openapi":"3.0.3","x":[${'{},'.repeat(1_000_000)}{}]}`)
  await t.rejects(small.reload(), { name: 'Error', message: /^it needs more than 32 MiB of memory\. Split its documents/ })
  t.equal(kindOf(small, '/main/old'), 'operation')
  write(documentOf(1, ['new']))
  await small.reload()
  t.equal(kindOf(small, '/main/new'), 'operation', 'and the next is read')

  const silent = await serve(t, () => {})
  const hasty = await open({ reader: { program, timeoutMs: 1 } })
  writeApi('http://127.0.0.1:4000', silent)
  await t.rejects(hasty.reload(), { name: 'Error', message: /^it was not read within 1 ms\. Check/ })
  t.equal(kindOf(hasty, '/main/old'), 'operation')
  const broken = await open({ reader: { program: { file: `${dir}/none.js`, execArgv: [] } } })
  await t.rejects(broken.reload(), { name: 'Error', message: /^the process that read it ended without a word \(exit code 1\)/ })
  t.equal(kindOf(broken, '/main/old'), 'operation')
})

t.test('the sources read a catalogue apart as they are, without a build', async t => {
  const live = await open({ reader: {} })
  write(documentOf(1, ['new']))
  await live.reload()
  t.equal(kindOf(live, '/main/new'), 'operation')
})

t.test('of node\'s flags the reader gets those that find its parts, each with its value, and no other', async t => {
  const kept = [
    ['--import', './a b.js'], ['--import=./a.js'], ['-r', './a.cjs'], ['--require', './a.cjs'], ['--loader', './a.js'], ['--experimental-loader=./a.js'], ['-C', 'development'], ['--conditions', 'x'], ['--conditions=x'],
    ['--enable-source-maps'], ['--enable_source_maps'], ['--use-openssl-ca'], ['--use-bundled-ca'], ['--openssl-config', 'a.cnf'], ['--experimental-strip-types'], ['--no-experimental-strip-types'], ['--preserve-symlinks']
  ]
  const left = [
    ['--env-file', '.env'], ['--env-file=.env'], ['--env_file=.env'], ['--env-file-if-exists', '.env'], ['--cpu-prof'], ['--cpu-prof-dir', 'a b'], ['--cpu-prof-dir=a'], ['--cpu_prof_dir', 'a'], ['--report-dir', 'a'], ['--report-on-signal'], ['--heap-prof-dir', 'a'],
    ['--diagnostic-dir', 'a'], ['--inspect=127.0.0.1:0'], ['--inspect-brk'], ['--max-old-space-size=99'], ['--max_old_space_size=99'], ['--title', 'a'], ['--watch-path', 'a'], ['--tls-keylog', 'a'], ['-e', 'a'], ['--trace-event-file-pattern', 'a'], ['--redirect-warnings', 'a']
  ]
  for (const flags of kept) t.strictSame(readerFlags(flags), flags)
  for (const flags of left) t.strictSame(readerFlags(flags), [], flags.join(' '))
  t.strictSame(readerFlags([...left.flatMap((flags, i) => [...flags, ...kept[i] ?? []])]), kept.flat(), 'among each other')
})

t.test('a process with an env file and folders for its profiles reads apart, and its reader is not given its secrets', async t => {
  writeApi('http://127.0.0.1:4000')
  write(documentOf(1, ['new']))
  const own = t.testdir({
    '.env': 'KEYGATE_SERVICE_TOKEN=from-the-file\nOTHER=goes on\n',
    'tell.mjs': `import { writeFileSync } from 'node:fs'
      writeFileSync(process.env.TOLD + '/' + process.pid, JSON.stringify({ reads: process.argv[1], token: process.env.KEYGATE_SERVICE_TOKEN, other: process.env.OTHER }))`,
    'run.mjs': `import { loadApart } from ${JSON.stringify(pathToFileURL(fileURLToPath(new URL('../dist/routing/load-apart.js', import.meta.url))).href)}
      const { catalogue } = await loadApart(${JSON.stringify(file)})
      console.log(catalogue.apis[0].operations.length)`
  })
  const told = `${own}/told`
  mkdirSync(told)
  const flags = ['--env-file=.env', '--import', './tell.mjs', '--cpu-prof', '--cpu-prof-dir', 'profiles', '--report-dir', 'a b', '--max-http-header-size', '20000']
  // The test runner's own hooks stay out of it.
  const { NODE_OPTIONS: _, KEYGATE_SERVICE_TOKEN: _token, ...env } = process.env
  const { stdout } = await promisify(execFile)(process.execPath, [...flags, 'run.mjs'], { cwd: own, env: { ...env, TOLD: told } })
  t.equal(stdout, '2\n')
  const tellers = readdirSync(told).map(name => JSON.parse(readFileSync(`${told}/${name}`, 'utf8')) as { reads: string, token?: string, other: string })
  t.strictSame(tellers.map(({ reads, token }) => [reads.replace(/^.*[/]/, ''), token]).sort(), [['catalogue-reader.js', undefined], ['run.mjs', 'from-the-file']])
  t.ok(existsSync(`${own}/profiles`) && !existsSync(`${own}/a b`))
})

/** What is logged, in order. */
function recordingLog (): { log: FastifyBaseLogger, lines: Array<{ level: string, message: string, reason?: string }> } {
  const lines: Array<{ level: string, message: string }> = []
  const into = (level: string) => (fields: object, message: string): void => { lines.push({ level, message, ...fields }) }
  return { log: { info: into('info'), error: into('error') } as unknown as FastifyBaseLogger, lines }
}

t.test('each reading is one line in the log and one in the metric, however many asked for it', async t => {
  const live = await open()
  const { log, lines } = recordingLog()
  const metrics = createMetrics(createRegistry('test'))
  const ask = reloader(live, { log, metrics })
  for (let i = 0; i < 20; i++) ask()
  await live.reload()
  write('{')
  for (let i = 0; i < 20; i++) ask()
  await live.reload().catch(() => {})
  t.match(lines, [
    { level: 'info', message: 'the catalogue was read anew', apis: 1, operations: 2 },
    { level: 'error', message: 'the new catalogue has a fault, the old one stays', reason: /reload\.json:1:\d+: not valid YAML/ }
  ])
  t.equal(lines.length, 2)
  t.strictSame((await metrics.catalogueReloads.get()).values.map(({ labels, value }) => [labels['result'], value]), [['taken', 1], ['faulty', 1]])
})

t.test('a reading that was not started, was ended or was late is no fault of the catalogue: it counts and is told as failed', async t => {
  const { execPath } = process
  t.teardown(() => { process.execPath = execPath })
  const { log, lines } = recordingLog()
  const metrics = createMetrics(createRegistry('test'))
  const silent = await serve(t, () => {})
  const read = async (live: LiveCatalogue): Promise<void> => {
    reloader(live, { log, metrics })()
    await live.reload().catch(() => {})
  }

  const own = t.testdir({ 'dies.mjs': 'process.kill(process.pid, "SIGKILL")' })
  await read(await open({ reader: { program: { file: `${own}/dies.mjs`, execArgv: [] } } }))
  const late = await open({ reader: { program, timeoutMs: 1 } })
  writeApi('http://127.0.0.1:4000', silent)
  await read(late)
  const live = await open()
  process.execPath = `${own}/no-node`
  await read(live)
  process.execPath = execPath
  write('{')
  await read(live)
  t.strictSame(lines.map(({ level, message }) => `${level}: ${message}`), [...Array.from({ length: 3 }, () => 'error: the new catalogue could not be read, the old one stays'), 'error: the new catalogue has a fault, the old one stays'])
  t.match(lines.map(({ reason }) => reason), [/ended without a word \(SIGKILL\)/, /^it was not read within 1 ms/, /^the process that reads it could not be started \(spawn .*no-node ENOENT\)/, /not valid YAML/])
  t.strictSame((await metrics.catalogueReloads.get()).values.map(({ labels, value }) => [labels['result'], value]), [['failed', 3], ['faulty', 1]])
  t.equal(kindOf(live, '/main/old'), 'operation')
})

t.test('requests are answered while 1000 operations are read', async t => {
  await underLoad(t, 1000)
})

if (process.env['KEYGATE_THOROUGH'] === '1') {
  t.test('requests are answered while 5000 operations are read', async t => {
    await underLoad(t, 5000)
  })
}

async function underLoad (t: Test, count: number): Promise<void> {
  const upstream = createServer((request, response) => { response.end(request.url) })
  await new Promise<void>(resolve => { upstream.listen(0, '127.0.0.1', resolve) })
  t.teardown(() => { upstream.close(); upstream.closeAllConnections() })
  write(documentOf(1, ['old']))
  writeApi(`http://127.0.0.1:${(upstream.address() as AddressInfo).port}`)
  const house = await openGatewayHouse(() => `apis: [{ name: none, prefix: /none, upstream: "http://127.0.0.1:1", openapi: ${dir}/reload.json }]`)
  t.teardown(house.stop)
  const { config } = readConfig({
    KEYGATE_APIS: file,
    KEYGATE_KEY_SERVICE_URL: house.stack.keyService.url,
    KEYGATE_SERVICE_TOKEN: house.stack.tokens.gateway,
    REDIS_URL: house.stack.redisUrl,
    LOG_LEVEL: 'silent',
    KEYGATE_ALLOW_PRIVATE_UPSTREAM: 'true',
    KEYGATE_REDIS_TIMEOUT_MS: '20000',
    KEYGATE_VERIFY_TIMEOUT_MS: '20000',
    KEYGATE_UPSTREAM_TIMEOUT_MS: '60000'
  })
  const live = await LiveCatalogue.open({ file, check: upstreamFaults(config), reader })
  const { app } = await buildApp({ config, live })
  t.teardown(async () => { await app.close() })
  const url = await app.listen({ port: 0, host: '127.0.0.1' })
  const project = await house.createProject()
  const { secret } = await project.createKey()
  const headers = basicOf(`${project.id}:${secret}`)

  const wrong: string[] = []
  const state = { goesOn: true, isReading: false, answersMeanwhile: 0, answers: 0 }
  const loops = Array.from({ length: 4 }, async () => {
    while (state.goesOn) {
      const { status, body } = await call(url, { path: '/main/old', headers })
      state.answers++
      if (state.isReading) state.answersMeanwhile++
      if (status !== 200 || body !== '/old') wrong.push(`${status} ${body}`)
    }
  })
  const some = async (): Promise<void> => {
    for (const from = state.answers; state.answers < from + 20 && wrong.length === 0;) await setTimeout(1)
  }
  await some()
  write(documentOf(count, ['old', 'new']))
  state.isReading = true
  await live.reload()
  state.isReading = false
  await some()
  t.match(await call(url, { path: '/main/new', headers }), { status: 200, body: '/new' })
  state.goesOn = false
  await Promise.all(loops)
  t.strictSame(wrong.slice(0, 5), [])
  t.comment(`${state.answersMeanwhile} answers meanwhile`)
  t.ok(state.answersMeanwhile > 20, `${state.answersMeanwhile} answers meanwhile`)
}
