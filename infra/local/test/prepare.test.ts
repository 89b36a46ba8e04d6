import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { delimiter, join } from 'node:path'
import t, { type Test } from 'tap'

const compiler = createRequire(import.meta.url).resolve('typescript/lib/tsc.js')
const nothing = { code: 0, out: '', err: '' }

/** A small clone: one room, one test room, and a package "typescript" out of a folder, so that nothing comes from a registry. */
function clone (t: Test): string {
  const root = t.testdir({
    'package.json': JSON.stringify({ name: 'clone', version: '1.0.0', type: 'module', dependencies: { typescript: 'file:vendor/typescript' } }),
    'package-lock.json': JSON.stringify({
      name: 'clone',
      version: '1.0.0',
      lockfileVersion: 3,
      requires: true,
      packages: {
        '': { name: 'clone', version: '1.0.0', dependencies: { typescript: 'file:vendor/typescript' } },
        'vendor/typescript': { version: '1.0.0' },
        'node_modules/typescript': { resolved: 'vendor/typescript', link: true }
      }
    }),
    'tsconfig.json': JSON.stringify({
      compilerOptions: { composite: true, target: 'es2023', module: 'nodenext', strict: true, types: [] },
      files: [],
      references: [{ path: 'packages/one' }, { path: 'packages/one/test' }]
    }),
    vendor: {
      typescript: {
        'package.json': JSON.stringify({ name: 'typescript', version: '1.0.0', type: 'commonjs' }),
        bin: { tsc: `require(${JSON.stringify(compiler)})` }
      }
    },
    infra: { local: {} },
    packages: {
      one: {
        'package.json': JSON.stringify({ type: 'module' }),
        'tsconfig.json': JSON.stringify({ extends: '../../tsconfig.json', compilerOptions: { rootDir: 'src', outDir: 'dist' }, include: ['src'] }),
        src: { 'index.ts': 'export const n: number = 1\n', deep: { 'extra.ts': 'export const extra = 1\n' } },
        test: { 'tsconfig.json': '{ "files": [] }', 'broken.ts': 'this is not TypeScript' }
      }
    }
  })
  copyFileSync(join(import.meta.dirname, '../prepare.js'), join(root, 'infra/local/prepare.js'))
  return root
}

async function prepare (root: string, { nodeArgs = [] as string[], env = {} as NodeJS.ProcessEnv } = {}) {
  const child = spawn(process.execPath, [...nodeArgs, join(root, 'infra/local/prepare.js')], {
    // where npm is; without what tap puts into the environment of its tests
    env: { PATH: process.env['PATH'], HOME: process.env['HOME'], npm_config_update_notifier: 'false', ...env }
  })
  let out = ''
  let err = ''
  child.stdout.on('data', chunk => { out += String(chunk) })
  child.stderr.on('data', chunk => { err += String(chunk) })
  const [code] = await once(child, 'close') as [number]
  return { code, out, err }
}

t.test('a fresh clone is installed and built; then there is nothing to do until something changes', async t => {
  const root = clone(t)
  const one = join(root, 'packages/one')
  const dist = (file: string) => join(one, 'dist', file)

  const first = await prepare(root)
  t.match(first, { code: 0, err: '' })
  t.match(first.out, /^Installing packages \(once, about a minute\) \.\.\. \d+\.\d s\nBuilding \.\.\. \d+\.\d s\n$/)
  t.match(readFileSync(dist('index.js'), 'utf8'), 'n = 1')
  t.strictSame(await prepare(root), nothing, 'nothing to do: not a word')

  writeFileSync(join(one, 'src/index.ts'), 'export const n: number = 22\n')
  t.match(await prepare(root), { code: 0, out: /^Building \.\.\. [\d.]+ s\n$/ }, 'a changed source')
  t.match(readFileSync(dist('index.js'), 'utf8'), 'n = 22')

  rmSync(join(one, 'src/deep/extra.ts'))
  t.match(await prepare(root), { code: 0, out: /^Building/ }, 'a removed source')
  t.equal(existsSync(dist('deep/extra.js')), false, 'its compiled twin is gone')
  t.equal(existsSync(dist('deep/extra.d.ts')), false)

  rmSync(join(one, 'dist'), { recursive: true })
  t.match(await prepare(root), { code: 0, out: /^Building/ }, 'an output that somebody removed')
  t.ok(existsSync(dist('index.js')))

  writeFileSync(join(root, 'package-lock.json'), `${readFileSync(join(root, 'package-lock.json'), 'utf8')}\n`)
  t.match(await prepare(root), { code: 0, out: /^Installing/ }, 'another lockfile')

  const later = new Date(Date.now() + 60_000)
  utimesSync(join(root, 'package-lock.json'), later, later)
  t.match((await prepare(root)).out, /^Building/, 'a lockfile that is only younger installs nothing')
})

t.test('packages that npm installed by hand are taken as they are', async t => {
  const root = clone(t)
  const npm = spawn('npm', ['ci', '--ignore-scripts'], { cwd: root, stdio: 'ignore' })
  t.strictSame(await once(npm, 'close'), [0, null])
  t.match((await prepare(root)).out, /^Building/)
})

t.test('two at once: one prepares, the other waits', async t => {
  const root = clone(t)
  const both = await Promise.all([prepare(root), prepare(root)])
  t.strictSame(both.map(({ code, err }) => ({ code, err })), [{ code: 0, err: '' }, { code: 0, err: '' }])
  t.equal(both.map(({ out }) => out).join('').match(/Installing/g)?.length, 1)
})

t.test('a lock whose process is gone is taken over', async t => {
  const root = clone(t)
  const gone = spawn(process.execPath, ['-e', ''])
  await once(gone, 'close')
  mkdirSync(join(root, '.keygate'))
  writeFileSync(join(root, '.keygate/preparing'), String(gone.pid))
  t.match(await prepare(root), { code: 0, err: '' })
})

t.test('failures name the fault, without a stack, and the next start tries again', async t => {
  const root = clone(t)
  const old = 'data:text/javascript,Object.defineProperty(process, "versions", { value: { node: "20.18.3" } })'
  const refused = await prepare(root, { nodeArgs: ['--import', old] })
  t.match(refused, { code: 1, out: '', err: /needs Node 20\.19 or newer; this is 20\.18\.3/ })

  const bin = join(root, 'bin')
  mkdirSync(bin)
  writeFileSync(join(bin, 'npm'), '#!/bin/sh\necho "npm error network says no" >&2\nexit 1\n', { mode: 0o755 })
  const offline = await prepare(root, { env: { PATH: `${bin}${delimiter}${process.env['PATH']}` } })
  t.match(offline, { code: 1, out: /\.\.\. failed\n$/, err: /network says no[^]*could not be installed/ })

  writeFileSync(join(root, 'packages/one/src/index.ts'), 'export const n: number = "text"\n')
  const broken = await prepare(root)
  t.match(broken, { code: 1, out: /Building \.\.\. failed/, err: /index\.ts.*TS2322[^]*The build failed/ })
  t.match(await prepare(root), { code: 1, out: /^Building \.\.\. failed/ }, 'still')
  for (const { err } of [refused, offline, broken]) t.notMatch(err, /\n\s+at /)

  writeFileSync(join(root, 'packages/one/src/index.ts'), 'export const n: number = 3\n')
  t.match(await prepare(root), { code: 0, err: '' })
})
