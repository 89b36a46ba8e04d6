import { createServer } from 'node:http'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import postgres from 'postgres'
import type { Target } from './targets.ts'

/** A search made as it must not be: what is asked for becomes part of the statement. A scanner that finds nothing here finds nothing. */
export async function startVulnerable (databaseUrl: string): Promise<{ target: Target, stop: () => Promise<void> }> {
  const sql = postgres(databaseUrl, { max: 2, onnotice: () => {} })
  const server = createServer((request, response) => {
    const search = new URL(request.url ?? '', 'http://localhost').searchParams.get('search') ?? ''
    sql.unsafe(`SELECT name FROM projects WHERE name LIKE '%${search}%'`).then(
      rows => { response.end(JSON.stringify(rows)) },
      () => { response.writeHead(500).end() }
    )
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  return {
    target: { name: 'control', url: `http://127.0.0.1:${port}/?search=Key`, parameters: ['search'] },
    stop: async () => {
      server.close()
      server.closeAllConnections()
      await sql.end({ timeout: 1 })
    }
  }
}
