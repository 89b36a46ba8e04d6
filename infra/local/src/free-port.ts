import { createServer } from 'node:net'
import { LocalError } from './local-error.ts'

// Below the range from which the system draws ports for outgoing connections (32768 on Linux, 49152 on macOS): a port
// that is free now is not taken by somebody's connection before our server listens on it.
const lowest = 20_000
const highest = 32_000

/** Whether a server could listen on 127.0.0.1 at this port now. */
export function isPortFree (port: number): Promise<boolean> {
  return new Promise(resolve => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen({ port, host: '127.0.0.1', exclusive: true }, () => server.close(() => resolve(true)))
  })
}

/**
 * A port that is free on 127.0.0.1: the wanted one, else the next above it; without a wish, any.
 * Ports in `avoid` are never given out. It may be taken again before it is used: the caller retries or says so.
 */
export async function freePort (wanted?: number, avoid: ReadonlySet<number> = new Set()): Promise<number> {
  if (wanted === undefined) return await freePort(lowest + Math.floor(Math.random() * (highest - lowest)), avoid)
  for (let port = wanted; port < Math.min(wanted + 500, 65_536); port++) {
    if (!avoid.has(port) && await isPortFree(port)) return port
  }
  throw new LocalError(`No free port from ${wanted} upwards on 127.0.0.1.`)
}
