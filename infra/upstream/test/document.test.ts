import { Readable } from 'node:stream'
import type { InjectOptions, LightMyRequestResponse } from 'fastify'
import t, { type Test } from 'tap'
import { buildUpstream, prefix } from '../src/index.ts'
import { createValidator, document, type Operation, operations } from './document.ts'

const validate = await createValidator()
const owner = '5f1c2f6e-8d3a-4b7c-9a10-2e4d6b8f0a12'

function requestOf (operation: Operation): InjectOptions & { headers: Record<string, string> } {
  const path = operation.path.replace(/\{(\w+)\}/g, (_, name) => String(operation.parameters.find(p => p.name === name)?.example))
  const [type, media] = Object.entries(operation.requestBody?.content ?? {})[0] ?? []
  return {
    method: operation.method as 'GET',
    url: prefix + path,
    headers: { 'x-keygate-project': owner, ...type !== undefined && { 'content-type': type } },
    ...media !== undefined && { payload: typeof media.example === 'string' ? Readable.from([media.example]) : media.example as object }
  }
}

function bodyOf (response: LightMyRequestResponse): unknown {
  return /json/.test(mediaTypeOf(response)) && !/ndjson/.test(mediaTypeOf(response)) ? response.json() : response.payload
}

function mediaTypeOf (response: LightMyRequestResponse): string {
  return String(response.headers['content-type'] ?? '').split(';')[0] ?? ''
}

t.test('every operation of the document answers as the document says', async t => {
  for (const operation of operations) {
    await t.test(operation.operationId, async t => {
      const app = buildUpstream()
      t.teardown(() => app.close())
      const response = await app.inject(requestOf(operation))

      const success = Object.keys(operation.responses).find(status => status.startsWith('2'))
      t.equal(String(response.statusCode), success)
      const content = operation.responses[success ?? '']?.content
      if (content === undefined) return t.equal(response.payload, '')
      const media = content[mediaTypeOf(response)]
      if (media === undefined) return t.fail(`${mediaTypeOf(response)} is not in the document`)
      t.equal(validate(media.schema, bodyOf(response)), undefined)
      if (operation.method === 'GET' && media.example !== undefined) exampleHolds(t, media.example, bodyOf(response))
    })
  }
})

function exampleHolds (t: Test, example: unknown, body: unknown): void {
  if (typeof example === 'string') t.ok(String(body).startsWith(example), 'the text begins as the example does')
  else t.same(body, example, 'the example is a real answer')
}

t.test('an id of the wrong shape is a 400 wherever an id stands in a path', async t => {
  const app = buildUpstream()
  t.teardown(() => app.close())
  for (const operation of operations) {
    for (const { name } of operation.parameters.filter(p => p.in === 'path')) {
      for (const wrong of ['nothing', 'urn:uuid:5f1c2f6e-8d3a-4b7c-9a10-2e4d6b8f0a12', '5f1c2f6e-8d3a-4b7c-9a10-2e4d6b8f0a12%0a', '..%2fforms']) {
        const request = requestOf({ ...operation, path: operation.path.replace(`{${name}}`, wrong) })
        const response = await app.inject(request)
        t.equal(response.statusCode, 400, `${operation.operationId}, ${name} = ${wrong}`)
        isDocumentedProblem(t, operation, response)
      }
    }
  }
})

t.test('a query outside the documented bounds is a 400', async t => {
  const app = buildUpstream()
  t.teardown(() => app.close())
  for (const operation of operations) {
    for (const { name, schema } of operation.parameters.filter(p => p.in === 'query')) {
      for (const wrong of outside(schema)) {
        const response = await app.inject({ ...requestOf(operation), query: { [name]: wrong } })
        t.equal(response.statusCode, 400, `${operation.operationId}?${name}=${wrong.slice(0, 20)}`)
        isDocumentedProblem(t, operation, response)
      }
    }
  }
})

function outside ({ type, format, minimum, maximum, minLength, maxLength, enum: values }: Record<string, unknown>): string[] {
  return [
    ...type === 'integer' ? ['x', '1.5'] : [],
    ...type === 'boolean' ? ['maybe'] : [],
    ...format === 'uuid' || values !== undefined ? ['something else'] : [],
    ...typeof minimum === 'number' ? [String(minimum - 1)] : [],
    ...typeof maximum === 'number' ? [String(maximum + 1)] : [],
    ...typeof minLength === 'number' ? ['x'.repeat(minLength - 1)] : [],
    ...typeof maxLength === 'number' ? ['x'.repeat(maxLength + 1)] : []
  ]
}

t.test('what is not there is a documented 404', async t => {
  const app = buildUpstream()
  t.teardown(() => app.close())
  const nowhere: Record<string, string> = { versionId: '9', submissionId: '00000000-0000-4000-8000-000000000000', fileId: '00000000-0000-4000-8000-000000000000' }
  for (const operation of operations.filter(o => '404' in o.responses)) {
    const path = operation.path.replace(/\{(versionId|submissionId|fileId)\}/, (_, name) => nowhere[name] ?? '')
    const response = await app.inject(requestOf({ ...operation, path }))
    t.equal(response.statusCode, 404, operation.operationId)
    isDocumentedProblem(t, operation, response)
  }
})

function isDocumentedProblem (t: Test, operation: Operation, response: LightMyRequestResponse): void {
  const media = operation.responses[String(response.statusCode)]?.content?.[mediaTypeOf(response)]
  t.equal(mediaTypeOf(response), 'application/problem+json')
  t.equal(media === undefined ? 'not in the document' : validate(media.schema, response.json()), undefined)
}

t.test('the route table and the document agree, in both directions', async t => {
  const app = buildUpstream()
  t.teardown(() => app.close())
  const routes: string[] = []
  app.addHook('onRoute', ({ method, url, config }) => {
    if (method !== 'HEAD' && url.startsWith(prefix)) routes.push(`${String(method)} ${url.slice(prefix.length)} ${config?.operationId}`)
  })
  await app.ready()
  const documented = operations.map(o => `${o.method} ${o.path.replace(/\{(\w+)\}/g, ':$1')} ${o.operationId}`)
  t.same(routes.sort(), documented.sort())
})

t.test('the document says to the gateway what it must', async t => {
  t.equal(new Set(operations.map(o => o.operationId)).size, operations.length, 'operationIds are unique')
  t.ok(operations.length >= 10)
  t.ok(document.servers.every(server => server.url.endsWith(prefix)))
  t.match(document.components.securitySchemes, {
    basic: { type: 'http', scheme: 'basic' }, apiKey: { type: 'apiKey', in: 'header', name: 'X-API-Key' }, bearer: { type: 'http', scheme: 'bearer' }
  })
  const idsWhere = (test: (o: Operation) => boolean): string[] => operations.filter(test).map(o => o.operationId).sort()
  t.same(idsWhere(o => o.security.length === 0), ['getStatus'], 'public')
  t.same(idsWhere(o => o.security.length > 0 && o.security.every(s => 'bearer' in s)), ['deleteSubmission', 'replaceSubmission', 'updateForm'], 'closed to keys')
  t.same(new Set(operations.flatMap(o => o.tags ?? [])), new Set(['forms', 'submissions', 'files', 'exports']), 'scopes')
  t.same(idsWhere(o => o.security.length > 0 && o.tags?.length !== 1), [], 'one scope each')
})
