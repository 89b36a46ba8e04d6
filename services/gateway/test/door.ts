import { createServer, request, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

/** Stands before key-service: counts look-ups, by digest and at once, and holds those that a test wants to be slow. */
export class Door {
  /** How often a digest was asked for. */
  readonly asked = new Map<string, number>()
  /** Most look-ups that were on their way at once. */
  most = 0
  holds = (_digest: string): boolean => false
  readonly held: Array<() => void> = []
  #now = 0
  readonly #target: () => string
  readonly #server = createServer((request, response) => { this.#take(request, response) })

  private constructor (target: () => string) { this.#target = target }

  /** @param target key-service's address, which may change when it is started again. */
  static async open (target: () => string): Promise<Door> {
    const door = new Door(target)
    await new Promise<void>(resolve => { door.#server.listen(0, '127.0.0.1', resolve) })
    return door
  }

  /** Leads a gateway through it. */
  get env (): { KEYGATE_KEY_SERVICE_URL: string } {
    return { KEYGATE_KEY_SERVICE_URL: `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}` }
  }

  get total (): number { return [...this.asked.values()].reduce((sum, times) => sum + times, 0) }

  release (): void { for (const go of this.held.splice(0)) go() }

  close (): void {
    this.#server.closeAllConnections()
    this.#server.close()
  }

  #take (request: IncomingMessage, response: ServerResponse): void {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => { chunks.push(chunk) }).on('end', () => {
      const body = Buffer.concat(chunks)
      const go = (): void => { this.#pass(request, body, response) }
      if (request.url !== '/v1/verifications') { go(); return }
      const { digest } = JSON.parse(body.toString()) as { digest: string }
      this.asked.set(digest, (this.asked.get(digest) ?? 0) + 1)
      this.most = Math.max(this.most, ++this.#now)
      response.on('close', () => { this.#now-- })
      if (this.holds(digest)) this.held.push(go)
      else go()
    })
  }

  #pass ({ method = 'GET', url = '/', headers }: IncomingMessage, body: Buffer, response: ServerResponse): void {
    const { hostname, port } = new URL(this.#target())
    request({ hostname, port, method, path: url, headers }, answer => {
      response.writeHead(answer.statusCode ?? 500, answer.headers)
      answer.pipe(response)
    }).on('error', () => { response.destroy() }).end(body)
  }
}
