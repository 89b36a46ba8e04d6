import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'

/** Connections that the generator opens, and that each system may open to the upstream. */
export const connections = 32

/** Where the upstream and Redis are; the bench gives them to every system. */
export const upstreamUrl = process.env['UPSTREAM_URL'] ?? 'http://127.0.0.1:4000'
export const redisUrl = process.env['REDIS_URL'] ?? 'redis://127.0.0.1:6379'

/** High enough that nothing is refused, in a window as long as it is usual. */
export const limit = { requests: 1_000_000_000, windowMs: 60_000 }

/** Listens on a free port and prints it. Ends on SIGTERM in order, so that a profile is written, and with the bench. */
export function serve (server: Server): void {
  server.listen(0, '127.0.0.1', () => { console.log((server.address() as AddressInfo).port) })
  endWithBench()
}

/** For a server that listens by itself. */
export function endWithBench (): void {
  process.once('SIGTERM', () => { process.exit() })
  process.once('disconnect', () => { process.exit() })
}
