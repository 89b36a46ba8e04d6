import { createServer } from 'node:http'
import { serve } from './serve.ts'

/** The same small answer to everything. */
const body = JSON.stringify({ id: 'f2a1c7d4', name: 'Daily report', active: true, versions: [1, 2, 3], updatedAt: '2025-01-01T00:00:00Z' })
const headers = ['content-type', 'application/json', 'content-length', String(Buffer.byteLength(body))]

const server = createServer((request, response) => {
  request.resume()
  response.writeHead(200, headers).end(body)
})
// Never the first to end an idle connection: that would be measured as an error of the system before it.
server.keepAliveTimeout = 0
serve(server)
