import { createHash, randomUUID } from 'node:crypto'
import { get as httpGet, type IncomingMessage } from 'node:http'
import { once } from 'node:events'
import { setImmediate as turn } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { buildUpstream, prefix, type UpstreamOptions } from '../src/index.ts'
import { createStore, maxChangedForms, maxPerForm } from '../src/data/store.ts'
import { maxStoredBytes } from '../src/routes/files.ts'
import { repeatSubmissions, type RowSource } from '../src/routes/exports.ts'

const form = '5f1c2f6e-8d3a-4b7c-9a10-2e4d6b8f0a12'
const json = { 'content-type': 'application/json' }

function build (t: Test, options: UpstreamOptions = {}): ReturnType<typeof buildUpstream> {
  const app = buildUpstream(options)
  t.teardown(() => app.close())
  return app
}

/** Counts the rows that were really made. */
function countingRows (): { source: RowSource, made: () => number, left: Promise<void> } {
  let made = 0
  let leave: () => void
  const left = new Promise<void>(resolve => { leave = resolve })
  return {
    * source (record, rows) {
      try {
        for (const row of repeatSubmissions(record, rows)) {
          made++
          yield row
        }
      } finally {
        leave()
      }
    },
    made: () => made,
    left
  }
}

async function open (t: Test, url: string): Promise<IncomingMessage> {
  const request = httpGet(url)
  t.teardown(() => request.destroy())
  const [response] = await once(request, 'response') as [IncomingMessage]
  return response
}

t.test('any UUID is a form, in either case, and the same one in every process', async t => {
  const one = build(t)
  const two = build(t)
  const id = randomUUID()
  const first = await one.inject(`${prefix}/forms/${id}`)
  t.equal(first.statusCode, 200)
  t.equal((await two.inject(`${prefix}/forms/${id.toUpperCase()}`)).payload, first.payload)
  t.not((await one.inject(`${prefix}/forms/${randomUUID()}`)).json().id, id)
})

t.test('what was written is read again, replaced and deleted', async t => {
  const app = build(t)
  const url = `${prefix}/forms/${form}/submissions`
  const created = await app.inject({ method: 'POST', url, payload: { answers: { town: 'Hope' } } })
  t.match(created.json(), { status: 'submitted', answers: { town: 'Hope' }, formId: form })
  const one = `${url}/${created.json().id}`
  t.same((await app.inject(one)).json(), created.json())
  await app.inject({ method: 'PUT', url: one, payload: { answers: { town: 'Nelson' }, status: 'draft' } })
  t.match((await app.inject(one)).json(), { status: 'draft', answers: { town: 'Nelson' } })
  t.equal((await app.inject({ method: 'DELETE', url: one })).statusCode, 204)
  t.equal((await app.inject(one)).statusCode, 404)
})

t.test('a body that is not acceptable is a 400 and changes nothing', async t => {
  const app = build(t)
  const url = `${prefix}/forms/${form}/submissions`
  const before = (await app.inject(url)).payload
  for (const payload of ['{', '[]', '{}', '{"answers":1}', '{"answers":{},"id":"mine"}', '{"answers":{},"status":"done"}']) {
    const response = await app.inject({ method: 'POST', url, headers: json, payload })
    t.equal(response.statusCode, 400, payload)
    t.match(response.headers['content-type'], 'application/problem+json')
  }
  t.equal((await app.inject(url)).payload, before)
})

t.test('pages put together are the whole list, and a cursor that names nothing ends it', async t => {
  const app = build(t)
  const url = `${prefix}/forms/${form}/submissions`
  for (let i = 0; i < 4; i++) await app.inject({ method: 'POST', url, payload: { answers: { i } } })
  const all = (await app.inject(url)).json().data
  const paged: unknown[] = []
  for (let cursor: string | null = ''; cursor !== null;) {
    const page: { data: unknown[], nextCursor: string | null } = (await app.inject(`${url}?limit=3${cursor === '' ? '' : `&cursor=${cursor}`}`)).json()
    t.ok(page.data.length <= 3)
    paged.push(...page.data)
    cursor = page.nextCursor
  }
  t.same(paged, all)
  t.same((await app.inject(`${url}?cursor=${randomUUID()}`)).json(), { data: [], nextCursor: null })
})

t.test('without a form in the path only the owner is answered; all others get the same 404', async t => {
  const app = build(t)
  const submission = (await app.inject(`${prefix}/forms/${form}/submissions`)).json().data[0]
  const file = (await app.inject(`${prefix}/forms/${form}/files`)).json().data[0]
  for (const path of [`/submissions/${submission.id}`, `/files/${file.id}`]) {
    const ask = async (project?: string, query = ''): Promise<{ statusCode: number, payload: string }> =>
      await app.inject({ url: prefix + path + query, headers: project === undefined ? {} : { 'x-keygate-project': project } })
    t.equal((await ask(form)).statusCode, 200)
    t.equal((await ask(form.toUpperCase())).statusCode, 200)
    const nobody = await ask()
    t.equal(nobody.statusCode, 404)
    t.equal((await ask(randomUUID())).payload, nobody.payload)
    t.equal((await ask(randomUUID(), `?formId=${form}`)).payload, nobody.payload, 'a query names no owner')
  }
})

t.test('an upload arrives to the byte; one too large is measured and not kept', async t => {
  const app = build(t)
  const upload = async (content: Buffer): Promise<{ id: string, size: number, sha256: string, stored: boolean }> =>
    (await app.inject({ method: 'POST', url: `${prefix}/forms/${form}/files?name=a.bin`, headers: { 'content-type': 'application/octet-stream' }, payload: content })).json()
  for (const size of [0, 1, maxStoredBytes, maxStoredBytes + 1]) {
    const content = Buffer.alloc(size, 'keygate')
    const info = await upload(content)
    t.match(info, { size, sha256: createHash('sha256').update(content).digest('hex'), stored: size <= maxStoredBytes })
    const download = await app.inject({ url: `${prefix}/files/${info.id}`, headers: { 'x-keygate-project': form } })
    if (info.stored) t.ok(download.rawPayload.equals(content))
    else t.equal(download.statusCode, 404)
  }
})

t.test('a body of another type than the operation takes is a 415, and an upload without one a 400', async t => {
  const app = build(t)
  const send = async (path: string, headers: Record<string, string>, payload?: string): Promise<number> =>
    (await app.inject({ method: 'POST', url: `${prefix}/forms/${form}/${path}`, headers, ...payload !== undefined && { payload } })).statusCode
  t.equal(await send('files', json, '{}'), 415)
  t.equal(await send('files', {}), 400)
  t.equal(await send('submissions', { 'content-type': 'application/octet-stream' }, 'x'), 415)
  t.equal(await send('submissions', { 'content-type': 'text/plain' }, 'x'), 415)
})

t.test('the export has as many rows as asked for, in both formats, and none for HEAD', async t => {
  const rows = countingRows()
  const app = build(t, { exportRows: rows.source })
  const url = `${prefix}/forms/${form}/export`
  const lines = (await app.inject(`${url}?rows=250`)).payload.trimEnd().split('\n').map(line => JSON.parse(line).row)
  t.same(lines, Array.from({ length: 250 }, (_, i) => i + 1))
  const csv = (await app.inject(`${url}?rows=3&format=csv`)).payload
  t.equal(csv.split('\r\n').length, 5)
  t.match(csv, /,"\{""fullName"":""/)
  t.equal((await app.inject(`${url}?rows=0`)).payload, '')
  const before = rows.made()
  t.equal((await app.inject({ method: 'HEAD', url: `${url}?rows=1000000` })).statusCode, 200)
  t.equal(rows.made(), before)
})

t.test('the export streams: rows wait for the reader, and stop when the reader leaves', async t => {
  const total = 1_000_000
  const rows = countingRows()
  const app = build(t, { exportRows: rows.source })
  const answers: Array<{ writableNeedDrain: boolean }> = []
  app.addHook('onRequest', async (_request, reply) => { answers.push(reply.raw) })
  const origin = await app.listen({ port: 0 })

  const response = await open(t, `${origin}${prefix}/forms/${form}/export?rows=${total}`)
  const [first] = await once(response, 'data') as [Buffer]
  t.match(first.toString(), /^\{"row":1,/, 'the first row is here')
  t.ok(rows.made() < total, 'before the last is made')

  response.pause()
  // Until the sockets between are full. Without backpressure this ends with every row made.
  while (answers[0]?.writableNeedDrain !== true && rows.made() < total) await turn()
  t.ok(rows.made() < total, 'a reader that pauses pauses the making')

  response.destroy()
  await rows.left
  t.ok(rows.made() < total, 'a reader that leaves ends it')
})

t.test('an export read to its end is whole', async t => {
  const app = build(t)
  const origin = await app.listen({ port: 0 })
  const response = await open(t, `${origin}${prefix}/forms/${form}/export?rows=50000`)
  let newlines = 0
  for await (const chunk of response) newlines += (chunk as Buffer).toString().split('\n').length - 1
  t.equal(newlines, 50_000)
  t.ok(response.complete)
})

t.test('echo answers with what arrived, nothing decoded or joined', async t => {
  const app = build(t)
  const origin = await app.listen({ port: 0 })
  const request = httpGet(`${origin}${prefix}/forms/${form}/echo?a=%20b&a=2&status=503&retryAfter=7&ownRateLimit=true`, {
    headers: { 'X-One': ['1', '2'], authorization: 'Basic eDp5' }
  })
  const [response] = await once(request, 'response') as [IncomingMessage]
  const body = JSON.parse(Buffer.concat(await response.toArray()).toString())
  t.equal(response.statusCode, 503)
  t.match(response.headers, { 'retry-after': '7', ratelimit: 'limit=1, remaining=0, reset=9', 'ratelimit-policy': '1;w=9' })
  t.match(body, { method: 'GET', path: `${prefix}/forms/${form}/echo`, query: 'a=%20b&a=2&status=503&retryAfter=7&ownRateLimit=true' })
  t.match(body.headers, { authorization: 'Basic eDp5', 'x-one': '1, 2' })
  t.same(body.rawHeaders.filter(([name]: string[]) => name === 'X-One'), [['X-One', '1'], ['X-One', '2']])
})

t.test('echo without options has a plain 200, and statuses without a body have none', async t => {
  const app = build(t)
  const url = `${prefix}/forms/${form}/echo`
  const plain = await app.inject(`${url}?`)
  t.equal(plain.json().query, '')
  t.notOk('retry-after' in plain.headers || 'ratelimit' in plain.headers)
  t.equal((await app.inject(`${url}?status=204`)).payload, '')
  t.equal((await app.inject(`${url}?delayMs=1`)).statusCode, 200)
})

// The deadline is far below the pause: without the early end this times out.
t.test('a pause ends when the client leaves', { timeout: 20_000 }, async t => {
  const app = build(t)
  const arrived = new Promise<void>(resolve => { app.addHook('preHandler', async () => { resolve() }) })
  const answered = new Promise<void>(resolve => { app.addHook('onSend', async () => { resolve() }) })
  const origin = await app.listen({ port: 0 })
  const request = httpGet(`${origin}${prefix}/forms/${form}/echo?delayMs=60000`)
  request.on('error', () => {})
  await arrived
  request.destroy()
  await answered
  t.pass('the handler went on')
})

t.test('the store forgets the oldest, so that load scripts can write for ever', async t => {
  const store = createStore()
  const ids = Array.from({ length: maxChangedForms + 1 }, () => randomUUID())
  for (const id of ids) store.change(id, record => { record.form = { ...record.form, name: 'changed' } })
  t.not(store.form(ids[0] as string).form.name, 'changed')
  t.equal(store.form(ids[1] as string).form.name, 'changed')
  const last = ids.at(-1) as string
  store.change(last, record => {
    const [sample] = record.submissions.values()
    for (let i = 0; i < maxPerForm + 5; i++) record.submissions.set(`new ${i}`, { ...sample, id: `new ${i}` } as never)
  })
  t.equal(store.form(last).submissions.size, maxPerForm)
})

t.test('our own fault is told in general words', async t => {
  const app = build(t, { exportRows: () => { throw new Error('a detail that nobody outside may read') } })
  const response = await app.inject(`${prefix}/forms/${form}/export`)
  t.equal(response.statusCode, 500)
  t.notMatch(response.payload, 'detail that')
})
