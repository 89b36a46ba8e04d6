import { createServer, type ServerResponse } from 'node:http'
import { Pool, type Dispatcher } from 'undici'
import { connections, serve, upstreamUrl } from './serve.ts'

/** The least that a proxy in Node can do: no hop-by-hop fields, no deadlines, no way back when a client leaves. A floor, not a proxy to use. */
class Pipe implements Dispatcher.DispatchHandler {
  readonly #response: ServerResponse

  constructor (response: ServerResponse) { this.#response = response }

  onRequestStart (): void {}

  onResponseStart (controller: Dispatcher.DispatchController, status: number): void {
    this.#response.writeHead(status, (controller.rawHeaders as Buffer[]).map(field => field.toString('latin1')))
  }

  onResponseData (controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#response.write(chunk) || this.#response.destroyed) return // what nobody reads any more is read away
    controller.pause()
    this.#response.once('drain', () => { controller.resume() })
  }

  onResponseEnd (): void { this.#response.end() }

  onResponseError (): void { this.#response.destroy() }
}

const pool = new Pool(upstreamUrl, { connections, pipelining: 1 })

serve(createServer((request, response) => {
  const headers = request.rawHeaders.filter((_, i, all) => all[i - i % 2]?.toLowerCase() !== 'connection')
  const hasBody = request.headers['content-length'] !== undefined || request.headers['transfer-encoding'] !== undefined
  pool.dispatch({ method: request.method as Dispatcher.HttpMethod, path: request.url as string, headers, body: hasBody ? request : null }, new Pipe(response))
}))
