import { once } from 'node:events'
import { createServer } from 'node:http'
import { connect, type AddressInfo, type Socket } from 'node:net'
import type { Test } from 'tap'
import { basicOf, openGatewayHouse, type GatewayHouse, type Project } from './house.ts'

/** What arrives at the upstream: each request with its whole body, and those that broke off. */
export interface Arrival { line: string, headers: string[], body: string, isWhole: boolean }

export interface Reply { status: number, head: string, body: string }

export interface IngressHouse extends GatewayHouse {
  /** An upstream of this process. It goes on with the answer to `?slow` when its server is told `go on`. */
  upstream: { arrivals: Arrival[], server: ReturnType<typeof createServer> }
  gateway: string
  project: Project
  /** Of an operation that the key of `auth` may call. */
  path: string
  auth: string
  /** A request that would be admitted, to stand behind another on the same connection. */
  second: string
  /** Requests that are in order but for what a vector puts in. */
  post: (headers: string, body: string, version?: string) => string
  get: (headers: string, target?: string) => string
  /** Sends bytes as they are, and fulfils with all answers once the gateway has closed the connection. */
  exchange: (bytes: string, base?: string) => Promise<Reply[]>
  /** Sends each vector with an admissible request behind it in the same write: one refusal that closes, and nothing gets through. */
  refuseAll: (t: Test, vectors: Record<string, string>, statuses?: number[]) => Promise<void>
}

/** A gateway before an upstream that shows to the byte what arrives. */
export async function openIngressHouse (): Promise<IngressHouse> {
  const upstream = {
    arrivals: [] as Arrival[],
    server: createServer((request, response) => {
      const arrival: Arrival = { line: `${request.method} ${request.url}`, headers: request.rawHeaders, body: '', isWhole: false }
      upstream.arrivals.push(arrival)
      upstream.server.emit('arrival')
      request.on('error', () => {}).setEncoding('latin1').on('data', (chunk: string) => { arrival.body += chunk }).on('end', () => {
        arrival.isWhole = true
        if (request.url?.endsWith('?slow') === true) {
          response.writeHead(200).write('first part')
          upstream.server.once('go on', () => response.end('last part'))
        } else response.writeHead(200, { 'content-length': '2' }).end('ok')
      })
    })
  }
  await new Promise<void>(resolve => { upstream.server.listen(0, '127.0.0.1', resolve) })
  const house = await openGatewayHouse(() => `
apis:
  - name: probe
    prefix: /probe
    upstream: http://127.0.0.1:${(upstream.server.address() as AddressInfo).port}
    openapi: ../upstream/forms.openapi.yaml
    project: { pathParameter: formId }
    scopes: tags
    policies: [{ name: wide, limit: 100000, window: 60s }]
    anonymousPolicies: [{ name: wide, limit: 100000, window: 60s, partition: address }]
`, { KEYGATE_REFUSALS_LIMIT: '100000' })
  const [gateway] = house.gateways as [string]
  const project = await house.createProject()
  const { secret } = await project.createKey()
  const path = `/probe/forms/${project.id}`
  const auth = `Authorization: ${basicOf(`${project.id}:${secret}`)[1] ?? ''}`
  const second = `GET ${path}?second HTTP/1.1\r\nHost: gw\r\n${auth}\r\nConnection: close\r\n\r\n`
  const post = (headers: string, body: string, version = '1.1'): string => `POST ${path}/submissions HTTP/${version}\r\nHost: gw\r\n${auth}\r\n${headers}\r\n\r\n${body}`
  const get = (headers: string, target = path): string => `GET ${target} HTTP/1.1\r\nHost: gw\r\n${auth}\r\n${headers === '' ? '' : `${headers}\r\n`}\r\n`
  const exchange = async (bytes: string, base = gateway): Promise<Reply[]> => {
    const socket = connect(Number(new URL(base).port), '127.0.0.1', () => { socket.write(bytes, 'latin1') })
    return await answersOn(socket)
  }
  const refuseAll = async (t: Test, vectors: Record<string, string>, statuses = [400]): Promise<void> => {
    for (const [name, bytes] of Object.entries(vectors)) {
      upstream.arrivals = []
      const replies = await exchange(bytes + second)
      t.equal(replies.length, 1, `${name}: one answer, then the end`)
      const { status, head = '', body = '' } = replies[0] ?? {}
      t.ok(statuses.includes(status ?? 0), `${name}: ${status}`)
      t.match(head, 'connection: close', name)
      t.match(head, 'content-type: application/problem+json', name)
      t.match(JSON.parse(body), { status, code: String }, name)
      t.strictSame(upstream.arrivals, [], `${name}: the upstream saw nothing`)
    }
  }
  const stop = async (): Promise<void> => {
    await house.stop()
    upstream.server.close()
  }
  return { ...house, upstream, gateway, project, path, auth, second, post, get, exchange, refuseAll, stop }
}

/** The answers on a connection, once it is closed. */
export async function answersOn (socket: Socket): Promise<Reply[]> {
  let text = ''
  socket.setEncoding('latin1').on('data', (chunk: string) => { text += chunk }).on('error', () => {})
  await once(socket, 'close')
  return text.split(/(?=HTTP\/1\.1 \d{3} )/).filter(part => part !== '').map(part => {
    const [head = '', ...rest] = part.split('\r\n\r\n')
    return { status: Number(head.slice(9, 12)), head: head.toLowerCase(), body: rest.join('\r\n\r\n') }
  })
}
