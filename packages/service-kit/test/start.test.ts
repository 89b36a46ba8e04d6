import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { test, type Test } from 'tap'
import { Type } from 'typebox'
import { cidrFault, loadConfig, urlFault } from '../src/index.ts'

/** tap's type for an expected error knows none of our members. */
const like = (wanted: object): Error => wanted as Error

const levels = ['debug', 'info']
const Variables = Type.Object({
  KEYGATE_PORT: Type.Integer({ minimum: 0, maximum: 65_535, default: 8080, description: 'the port' }),
  KEYGATE_PEPPER: Type.String({ secret: true, minLength: 8, pattern: '^p', description: 'some pepper' }),
  LOG_LEVEL: Type.Union(levels.map(level => Type.Literal(level)), { default: 'info', description: 'how much' }),
  MODE: Type.Optional(Type.Unsafe<string>({ type: 'string', enum: ['a', 'b'] }))
})

test('settings: frozen and of their type, or all faults at once, one per variable', t => {
  const env = { KEYGATE_PEPPER: 'pepper pepper' }
  const { config, warnings } = loadConfig(Variables, { ...env, KEYGATE_PORT: '9000', MODE: '', OTHER: 'x' })
  t.strictSame(config, { KEYGATE_PORT: 9000, KEYGATE_PEPPER: 'pepper pepper', LOG_LEVEL: 'info' }, 'an empty variable is not set')
  t.throws(() => { (config as { LOG_LEVEL: string }).LOG_LEVEL = 'debug' })
  t.strictSame(warnings, [])
  t.strictSame(loadConfig(Variables, { ...env, KEYGATE_PROT: '1', KEYGATE_PEPER_FILE: 'x' }).warnings, [
    'KEYGATE_PROT is not a setting of this service; did you mean KEYGATE_PORT?',
    'KEYGATE_PEPER_FILE is not a setting of this service; did you mean KEYGATE_PEPPER_FILE?'
  ])
  t.throws(() => loadConfig(Variables, { KEYGATE_PORT: 'x', KEYGATE_PEPPER: 'hunter2', LOG_LEVEL: 'loud', MODE: 'c' }), like({
    name: 'ConfigError',
    message: /^The configuration has 4 faults:\n {2}- /,
    faults: [
      'KEYGATE_PORT must be integer, but is "x": the port',
      'KEYGATE_PEPPER must NOT have fewer than 8 characters: some pepper',
      'LOG_LEVEL must be one of debug, info, but is "loud"',
      'MODE must be one of a, b, but is "c"'
    ].map(fault => new RegExp(`^${fault}$`))
  }))
  t.throws(() => loadConfig(Variables, {}), like({ message: /has a fault:/, faults: [/^KEYGATE_PEPPER is missing: some pepper \(or name a file in KEYGATE_PEPPER_FILE\)$/] }))
  const check = ({ KEYGATE_PORT: port, KEYGATE_PEPPER: pepper }: { KEYGATE_PORT?: number, KEYGATE_PEPPER?: string }) =>
    [...port === 13 ? ['KEYGATE_PORT is unlucky'] : [], ...pepper === undefined ? ['KEYGATE_PEPPER is not seen'] : []]
  t.throws(() => loadConfig(Variables, { KEYGATE_PORT: '13' }, check), like({ faults: [/^KEYGATE_PEPPER is missing/, /^KEYGATE_PORT is unlucky$/] }), 'a check of one\'s own adds to them')
  t.end()
})

test('a secret may come from a file', t => {
  const dir = t.testdir({ pepper: 'pepper of a file\r\n' })
  const file = join(dir, 'pepper')
  t.equal(loadConfig(Variables, { KEYGATE_PEPPER_FILE: file }).config.KEYGATE_PEPPER, 'pepper of a file', 'without its line end')
  t.equal(loadConfig(Variables, { KEYGATE_PEPPER: 'pepper pepper', KEYGATE_PEPPER_FILE: '' }).config.KEYGATE_PEPPER, 'pepper pepper')
  const faultsOf = (env: Record<string, string>) => { try { return loadConfig(Variables, env) } catch (error) { return (error as { faults: string[] }).faults } }
  t.match(faultsOf({ KEYGATE_PEPPER: 'hunter2', KEYGATE_PEPPER_FILE: file }), [/^KEYGATE_PEPPER and KEYGATE_PEPPER_FILE are both set: keep one of them$/])
  t.strictSame((faultsOf({ KEYGATE_PEPPER_FILE: `${file}.absent` }) as string[]).map(fault => fault.replace(dir, '')), [
    `KEYGATE_PEPPER_FILE names ${join('/', 'pepper.absent')}, which cannot be read (ENOENT): give the path of a file that this user may read`
  ], 'once, and not as missing too')
  writeFileSync(file, 'hunter2')
  t.match(faultsOf({ KEYGATE_PEPPER_FILE: file }), [/^(?!.*hunter2)KEYGATE_PEPPER must NOT have fewer/])
  t.match(faultsOf({ KEYGATE_PEPPER: 'pepper pepper', KEYGATE_PORT_FILE: file }), { warnings: [/KEYGATE_PORT_FILE is not a setting/] }, 'only a secret may')
  t.end()
})

test('what is wrong with a URL or a list of CIDRs, without its password', t => {
  const fault = (value: string) => urlFault('DATABASE_URL', value, ['postgres', 'postgresql'])
  for (const good of ['postgres://h', 'postgresql://u:p%40@h:5432/db?a=b', 'POSTGRES://[::1]:5432/db', 'postgres://u:@h/', 'postgres://h:65535', 'postgres://a,b/db']) t.equal(fault(good), undefined, good)
  for (const [wrong, sentence] of [
    ['', 'must begin with postgres:// or postgresql://'], ['h:5432', 'must begin with'], ['redis://h', 'must begin with'], ['postgres:h', 'must begin with'],
    ['postgres://', 'names no host'], ['postgres:///db', 'names no host'], ['postgres://u:hunter2@/db', 'names no host'], ['postgres://u:hunter2@:5432/db', 'names no host'],
    ['postgres://u:hunter2@h:65536/db', 'names the port 65536'], ['postgres://h:99999', 'names the port 99999'],
    ['postgres://u:hunter2%zz@h/db', 'holds a % that begins no escape'], ['postgres://u:hunter2%@h/db', 'holds a %'], ['postgres://u:hunter2%ff@h/db', 'holds a %'], ['postgres://h/d%b', 'holds a %'],
    ['postgres://u:hunter2@h:x/db', 'is not a URL'], ['postgres://u:hunter2/x@h/db', 'is not a URL'], ['postgres://a b/db', 'is not a URL']
  ] as const) {
    const said = fault(wrong) ?? ''
    t.ok(said.startsWith(`DATABASE_URL ${sentence}`), `${wrong}: ${said}`)
    t.notMatch(said, /hunter2/)
  }
  t.equal(cidrFault('X', ['10.0.0.0/8', '192.0.2.1', '::1', '2001:db8::/32', '10.0.0.1/32', '::/128']), undefined)
  t.equal(cidrFault('X', []), undefined)
  const wrong = ['10.0.0.0/33', '::/129', '10.0.0.0/0', '10.0.0.0/', '10.0.0.0/08', '10.0.0.0/8/8', 'localhost', '']
  t.equal(cidrFault('X', ['::1', ...wrong]), `X has ${wrong.join(', ')}: give addresses or CIDRs such as 10.0.0.0/8, separated by commas`)
  t.end()
})

interface Ready { type: string, url: string, metricsUrl?: string }
interface Ended { code: number | null, signal: string | null, out: string, err: string }
interface Run { child: ChildProcess, ready: Promise<Ready>, ended: Promise<Ended> }

/** test/service.js as a process, without this one's settings. */
function run (t: Test, env: Record<string, string> = {}): Run {
  const child = fork(fileURLToPath(new URL('service.js', import.meta.url)), [], { env: { PATH: process.env['PATH'], ...env }, execArgv: [], stdio: ['ignore', 'pipe', 'pipe', 'ipc'] })
  t.teardown(() => { child.kill('SIGKILL') })
  return {
    child,
    ready: new Promise(resolve => { child.once('message', message => { resolve(message as Ready) }) }),
    // 'close' would not do: it never comes after a disconnect of ours.
    ended: Promise.all([once(child, 'exit'), text(child.stdout as Readable), text(child.stderr as Readable)]).then(([[code, signal], out, err]) => ({ code, signal, out, err }))
  }
}

test('a service tells its parent where it listens, and ends in order when it is asked to or its parent is gone', async t => {
  const [asked, left] = [run(t, { KEYGATE_METRICS_PORT: '0' }), run(t)]
  const { type, url, metricsUrl } = await asked.ready
  t.equal(type, 'ready')
  t.equal((await fetch(url)).status, 404)
  t.match(await (await fetch(metricsUrl ?? '')).text(), /process_cpu/)
  asked.child.kill('SIGTERM')
  t.match(await asked.ended, { code: 0, signal: null, out: 'closed\n', err: '' })
  await left.ready
  left.child.disconnect()
  t.match(await left.ended, { code: 0, out: 'closed\n', err: '' }, 'the parent is gone')
})

test('a start that fails says in a sentence what to change: exit code 78 for settings, 1 otherwise, never a stack', async t => {
  const holder = createServer()
  await new Promise<void>(resolve => { holder.listen(0, '127.0.0.1', resolve) })
  t.teardown(() => { holder.close() })
  const taken = String((holder.address() as AddressInfo).port)
  const cases: Array<[Record<string, string>, number, RegExp]> = [
    [{ KEYGATE_PORT: 'x' }, 78, /^The configuration has a fault:\n {2}- KEYGATE_PORT must be integer, but is "x"\n$/],
    [{ KEYGATE_PORT: taken }, 1, new RegExp(`^Port ${taken} is taken\\. Set KEYGATE_PORT to another one, or 0 for any free port\\.\n$`)],
    [{ KEYGATE_METRICS_PORT: taken }, 1, new RegExp(`^Port ${taken} is taken\\. Set KEYGATE_METRICS_PORT to another one, or 0 for any free port\\.\n$`)],
    [{ KEYGATE_HOST: '192.0.2.1' }, 1, /^192\.0\.2\.1 is no address of this machine\. Set KEYGATE_HOST to .*\n$/],
    [{ KEYGATE_HOST: 'nowhere.invalid' }, 1, /^KEYGATE_HOST is nowhere\.invalid, and no address is known for that name\. Set it to .*\n$/],
    [{ FAIL: 'expected' }, 1, /^The moon is away\. Wait for it\.\n$/],
    [{ FAIL: 'something odd' }, 1, /^The service could not start: something odd\nThe log at LOG_LEVEL=debug has more\.\n$/]
  ]
  await Promise.all(cases.map(async ([env, code, said]) => {
    const ended = await run(t, env).ended
    t.match(ended, { code, out: '', err: said }, JSON.stringify(env))
  }))
  const { code, out, err } = await run(t, { FAIL: 'something odd', LOG_LEVEL: 'debug' }).ended
  t.match({ code, err }, { code: 1, err: 'The service could not start: something odd\n' })
  t.match(JSON.parse(out), { err: { type: 'TypeError', stack: /service\.js/ } }, 'the log has more')
})
