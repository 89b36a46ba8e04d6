import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import t from 'tap'
import { repoRoot } from '../src/root.ts'

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
