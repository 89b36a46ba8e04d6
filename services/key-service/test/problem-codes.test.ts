import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { test } from 'tap'

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url))

/** What Fastify refuses by itself, in our spelling (`problem.ts` of the service-kit). */
const ofFastify = new Map([['bad_url', ['400']], ['invalid_content_length', ['400']], ['body_too_large', ['413']], ['max_param_length', ['414']]])

/** Code -> statuses; `?` where the source decides the status elsewhere. */
function codesOfSource (): Map<string, Set<string>> {
  const found = new Map<string, Set<string>>(Array.from(ofFastify, ([code, statuses]) => [code, new Set(statuses)]))
  const add = (code = '', status = '?') => { found.set(code, (found.get(code) ?? new Set()).add(status)) }
  for (const folder of ['../src', '../../../packages/service-kit/src']) {
    for (const file of readdirSync(here(folder), { recursive: true, encoding: 'utf8' }).filter(name => name.endsWith('.ts'))) {
      const source = readFileSync(join(here(folder), file), 'utf8')
      for (const [, status, code] of source.matchAll(/\bstatus(?:: (\d{3}))?,\s*code: '([a-z_]+)'/g)) add(code, status)
      for (const [, code] of source.matchAll(/\bconflict\(\s*'([a-z_]+)'/g)) add(code, '409')
    }
  }
  return found
}

test('README.md lists every problem code with its statuses, and no other', t => {
  const [, section = ''] = /\n## Problem codes\n([^]*?)\n## /.exec(readFileSync(here('../README.md'), 'utf8')) ?? []
  const listed = new Map(Array.from(section.matchAll(/^\| `([a-z_]+)` \| (\d{3}(?: · \d{3})*) \| \S.*\|$/gm), ([, code = '', statuses = '']) => [code, statuses.split(' · ')]))
  const made = codesOfSource()
  t.ok(made.size > 50, `${made.size} codes`)
  t.same([...made.keys()].filter(code => !listed.has(code)), [], 'made and not listed')
  t.same([...listed.keys()].filter(code => !made.has(code)), [], 'listed and not made')
  const wrong = [...made].filter(([code, statuses]) => statuses.has('?') ? [...statuses].some(status => status !== '?' && !listed.get(code)?.includes(status)) : [...statuses].sort().join() !== listed.get(code)?.join())
  t.same(wrong.map(([code]) => code), [], 'with another status')
  t.end()
})
