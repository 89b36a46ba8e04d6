import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import { join } from 'node:path'

/** A request as it reached the upstream, to the byte. */
export interface Seen {
  method: string
  target: string
  /** Raw pairs, names as they were written; a character is a byte. */
  headers: Array<[string, string]>
  /** The values of a field, in order. */
  all: (name: string) => string[]
  /** What came after the headers so far, framing and all; only its end is kept of a large one. */
  body: string
  bodyBytes: number
  /** Fulfils with the body when it is there as a whole. */
  whole: Promise<string>
  /** The how-manieth request of its connection it is, from 1. */
  nth: number
  socket: Socket
  /** Fulfils when its connection is closed. */
  closed: Promise<void>
}

export type Behaviour = (seen: Seen) => void

export interface RawUpstream {
  url: string
  /** Every request, in the order of arrival. */
  seen: Seen[]
  /** Connections that are open. */
  sockets: Set<Socket>
  connections: number
  /** What is done when a request's headers are there. */
  behave: Behaviour
  close: () => Promise<void>
}

const kept = 64 * 1024

/** An upstream that answers the bytes that it is told: a library would mend them. */
export async function startRawUpstream (behave: Behaviour = ok()): Promise<RawUpstream> {
  const server: Server = createServer({ noDelay: true })
  const upstream: RawUpstream = {
    url: '',
    seen: [],
    sockets: new Set(),
    connections: 0,
    behave,
    close: async () => {
      for (const socket of upstream.sockets) socket.destroy()
      await new Promise(resolve => { server.close(resolve) })
    }
  }
  server.on('connection', socket => {
    upstream.connections++
    upstream.sockets.add(socket)
    socket.on('close', () => { upstream.sockets.delete(socket) }).on('error', () => {})
    read(socket, seen => { upstream.seen.push(seen); upstream.behave(seen) })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  upstream.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return upstream
}

/** A plain answer with a length. */
export function ok (body = 'ok', head = ''): Behaviour {
  return ({ socket }) => { socket.write(`HTTP/1.1 200 OK\r\n${head}Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`, 'latin1') }
}

/** These bytes, and then nothing more. */
export function say (text: string, then: 'stay' | 'end' | 'reset' = 'stay'): Behaviour {
  return ({ socket }) => {
    socket.write(text, 'latin1', () => {
      if (then === 'end') socket.end()
      else if (then === 'reset') socket.resetAndDestroy()
    })
  }
}

/** What the upstream saw of the requests of one step. */
export async function during<T> (upstream: RawUpstream, behave: Behaviour, act: () => Promise<T>): Promise<{ result: T, seen: Seen[] }> {
  upstream.behave = behave
  const from = upstream.seen.length
  const result = await act()
  return { result, seen: upstream.seen.slice(from) }
}

export const isProblem = ({ text, isReset }: { text: string, isReset: boolean }, status: number, code: string): boolean =>
  !isReset && text.startsWith(`HTTP/1.1 ${status} `) && text.includes(`"code":"${code}"`)

function read (socket: Socket, onHead: (seen: Seen) => void): void {
  let rest: Buffer = Buffer.alloc(0)
  let current: { seen: Seen, left: number, done: (body: string) => void } | null = null // left: -1 for chunked
  let nth = 0
  const closed = new Promise<void>(resolve => { socket.once('close', () => { resolve() }) })
  const take = (chunk: Buffer): void => {
    if (current === null) {
      rest = Buffer.concat([rest, chunk])
      const end = rest.indexOf('\r\n\r\n')
      if (end === -1) return
      const head = rest.subarray(0, end).toString('latin1')
      const after = rest.subarray(end + 4)
      rest = Buffer.alloc(0)
      let done: (body: string) => void = () => {}
      const whole = new Promise<string>(resolve => { done = resolve })
      const [first = '', ...lines] = head.split('\r\n')
      const [method = '', target = ''] = first.split(' ')
      const headers = lines.map((line): [string, string] => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 2)])
      const all = (name: string): string[] => headers.filter(([written]) => written.toLowerCase() === name.toLowerCase()).map(([, value]) => value)
      const seen: Seen = { method, target, headers, all, body: '', bodyBytes: 0, whole, nth: ++nth, socket, closed }
      const left = all('transfer-encoding').length > 0 ? -1 : Number(all('content-length')[0] ?? 0)
      current = { seen, left, done }
      const isBodyless = left === 0
      if (isBodyless) { current = null; done('') }
      onHead(seen)
      if (after.length > 0) take(after)
      return
    }
    const { seen, left, done } = current
    seen.bodyBytes += chunk.length
    seen.body = (seen.body + chunk.toString('latin1')).slice(-kept)
    const isWhole = left === -1 ? seen.body.endsWith('0\r\n\r\n') : seen.bodyBytes >= left
    if (!isWhole) return
    current = null
    done(seen.body)
  }
  socket.on('data', take)
}

export interface RawClient {
  socket: Socket
  /** All that came so far; a character is a byte. */
  text: () => string
  /** Fulfils with all that came as soon as it has these characters. */
  until: (part: string) => Promise<string>
  /** Fulfils when the connection is closed; `isReset`: by an error, such as a RST. */
  closed: Promise<{ text: string, isReset: boolean }>
}

/** A client that sends the bytes that it is told. */
export function rawClient (url: string, bytes: string | Buffer): RawClient {
  const { hostname, port } = new URL(url)
  const socket = connect({ host: hostname, port: Number(port), noDelay: true })
  const chunks: string[] = []
  const text = (): string => {
    if (chunks.length > 1) chunks.splice(0, chunks.length, chunks.join(''))
    return chunks[0] ?? ''
  }
  let isReset = false
  const closed = new Promise<{ text: string, isReset: boolean }>(resolve => {
    socket.on('error', () => { isReset = true }).on('close', () => { resolve({ text: text(), isReset }) })
  })
  socket.setEncoding('latin1').on('data', (chunk: string) => { chunks.push(chunk) })
  socket.write(bytes)
  return {
    socket,
    text,
    closed,
    until: async part => {
      while (!text().includes(part)) {
        if (socket.closed) throw new Error(`it was closed before it said ${JSON.stringify(part)}, and said ${JSON.stringify(text().slice(0, 500))}`)
        await Promise.race([once(socket, 'data').catch(() => {}), closed])
      }
      return text()
    }
  }
}

/** Sends bytes and takes what comes until the connection is closed. */
export async function exchange (url: string, bytes: string | Buffer): Promise<{ text: string, isReset: boolean }> {
  return await rawClient(url, bytes).closed
}

/** A GET, or another request without a body, that asks to close the connection. */
export function plain (path: string, { method = 'GET', headers = '' }: { method?: string, headers?: string } = {}): string {
  return `${method} ${path} HTTP/1.1\r\nHost: gateway\r\n${headers}Connection: close\r\n\r\n`
}

/** The catalogue entry and document of an API with every method on `/things/{thing}` for keys and on `/open/{thing}` for everybody. */
export function rawApi (dir: string, upstream: string, name = 'raw'): string {
  const file = join(dir, `${name}.openapi.json`)
  const responses = { 200: { description: 'ok' } }
  const parameters = [{ name: 'thing', in: 'path', required: true, schema: { type: 'string' } }]
  const operations = (security: object[]): object => Object.fromEntries(['get', 'head', 'post', 'put', 'patch', 'delete', 'options'].map(method => [method, { security, responses }]))
  writeFileSync(file, JSON.stringify({
    openapi: '3.0.3',
    info: { title: 'Raw', version: '1' },
    paths: {
      '/things/{thing}': { parameters, ...operations([{ apiKey: [] }, { basic: [] }]) },
      '/open/{thing}': { parameters, ...operations([]) }
    },
    components: { securitySchemes: { apiKey: { type: 'apiKey', in: 'header', name: 'X-API-Key' }, basic: { type: 'http', scheme: 'basic' } } }
  }))
  return `
  - name: ${name}
    prefix: /${name}
    upstream: ${upstream}
    openapi: ${file}
    policies: [{ name: default, limit: 100000, window: 60s }]
    anonymousPolicies: [{ name: anonymous, limit: 100000, window: 60s, partition: address }]
`
}
