import { execFile } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import { test } from 'tap'
import { configFor, startApp, startHouse } from './helper.ts'

const file = fileURLToPath(new URL('../openapi.json', import.meta.url))
const ruleset = fileURLToPath(new URL('../.spectral.yaml', import.meta.url))
const remedy = 'KEYGATE_WRITE_OPENAPI=1 npx tap services/key-service/test/openapi.test.ts'

test('the OpenAPI document', async t => {
  const house = await startHouse(t)
  const { app } = await startApp(t, configFor(t, await house.database(), house.redis.url))
  const document = (await app.inject('/openapi.json')).json()
  const text = `${JSON.stringify(document, null, 2)}\n`

  await t.test('is 3.1 and equal to the committed file', async t => {
    t.equal(document.openapi, '3.1.0')
    if (process.env['KEYGATE_WRITE_OPENAPI'] === '1') writeFileSync(file, text)
    const committed = readFileSync(file, 'utf8')
    const where = committed === text ? undefined : firstDifference(JSON.parse(committed), document) ?? 'the order or the layout'
    t.equal(where, undefined, `openapi.json is what the routes say; else write it anew: ${remedy}`)
  })

  await t.test('is clean under the OpenAPI and OWASP rule sets of spectral', async t => {
    const findings = await lint(file)
    t.same(findings.slice(0, 20), [], `${findings.length} findings`)
  })

  await t.test('every operation has a name, a summary, a tag that is explained, and an example of its body', async t => {
    const tags = document.tags.map((tag: { name: string }) => tag.name)
    const operations = Object.values<any>(document.paths).flatMap(item => Object.values<any>(item))
    t.equal(new Set(operations.map(operation => operation.operationId)).size, operations.length)
    for (const { operationId, tags: own, summary, requestBody } of operations) {
      t.match({ operationId, summary, own }, { operationId: /^[a-z]+[A-Za-z]*$/, summary: String, own: [String] }, operationId)
      t.ok(own.every((tag: string) => tags.includes(tag)), `${operationId} has tags that are explained`)
      const media = requestBody?.content['application/json']
      const hasFields = Object.keys(media?.schema.properties ?? {}).length > 0
      t.ok(!hasFields || media.example !== undefined || media.examples !== undefined || media.schema.examples !== undefined, `${operationId} has an example`)
    }
  })

  await t.test('tells every header that answers have, and 429 of what wrong tokens ask', t => {
    const operations = Object.values<any>(document.paths).flatMap(item => Object.values<any>(item))
    const withHeader = (name: string, status: RegExp): string[] => operations
      .flatMap(({ operationId, responses }) => Object.entries<any>(responses).filter(([code, { headers = {} }]) => status.test(code) && name in headers).map(([code]) => `${operationId} ${code}`))
      .sort()
    t.same(withHeader('ETag', /^2/), [
      'createKey 201', 'createProject 201', 'createRole 201', 'disableKey 200', 'editKey 200', 'editProject 200', 'editRole 200', 'enableKey 200', 'extendRotation 200',
      'finishRotation 200', 'getKey 200', 'getProject 200', 'getRole 200', 'revokeKey 200', 'rotateKey 200'
    ])
    t.same(withHeader('ETag', /412/), operations.filter(({ responses }) => '412' in responses).map(({ operationId }) => `${operationId} 412`).sort())
    t.same(withHeader('Idempotency-Replayed', /./), ['createKey 201', 'rotateKey 200'])
    t.same(withHeader('Retry-After', /409/), ['createKey 409', 'rotateKey 409'])
    t.same(operations.filter(({ responses }) => !('429' in responses)).map(({ operationId }) => operationId), [])
    t.same(withHeader('RateLimit', /./).filter(name => /^(verify|listChanges) /.test(name)), ['listChanges 429', 'verify 429'], 'of what is not counted only the refusal tells a count')
    t.end()
  })
})

/** The JSON pointer of the first place that differs. */
function firstDifference (a: unknown, b: unknown, at = ''): string | undefined {
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return Object.is(a, b) ? undefined : at
  for (const name of new Set([...Object.keys(a), ...Object.keys(b)])) {
    const place = `${at}/${name.replaceAll('~', '~0').replaceAll('/', '~1')}`
    const [left, right] = [(a as Record<string, unknown>)[name], (b as Record<string, unknown>)[name]]
    const found = left === undefined || right === undefined ? place : firstDifference(left, right, place)
    if (found !== undefined) return found
  }
  return undefined
}

/** Every finding of every severity, as spectral's command line tells it. */
async function lint (path: string): Promise<string[]> {
  const require = createRequire(import.meta.url)
  const command = require.resolve('@stoplight/spectral-cli')
  const output = await new Promise<string>((resolve, reject) => {
    execFile(process.execPath, [command, 'lint', '--ruleset', ruleset, '--format', 'json', '--quiet', '--fail-severity', 'hint', path], { env: { PATH: process.env['PATH'] }, maxBuffer: 2 ** 26 }, (error, stdout, stderr) => {
      if (stderr !== '' || (error !== null && error.code !== 1)) reject(new Error(`spectral failed: ${stderr}${error?.message ?? ''}`))
      else resolve(stdout)
    })
  })
  const findings = JSON.parse(output) as Array<{ code: string, message: string, path: Array<string | number> }>
  return findings.map(({ code, message, path }) => `${code} at ${path.join('/')}: ${message}`)
}
