import { once } from 'node:events'
import { readFileSync, readdirSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import type { Env, Service } from '@keygate/local'
import type { GatewayHouse } from './house.ts'

export const MiB = 1024 * 1024

/** A gateway as a process, whose memory and descriptors are nobody else's. It collects its garbage at SIGWINCH. */
export async function startMeasuredGateway (house: GatewayHouse, env: Env = {}): Promise<Service> {
  const collect = 'data:text/javascript,process.on("SIGWINCH", () => { gc() })'
  return await house.startGateway({ KEYGATE_METRICS_PORT: '0', KEYGATE_DRAIN_DELAY_MS: '0', ...env }, { nodeArgs: ['--expose-gc', '--import', collect] })
}

/** The sum of a metric's samples with these labels. */
export async function metricOf ({ metricsUrl = '' }: Service, name: string, labels = ''): Promise<number> {
  const text = await (await fetch(metricsUrl, { headers: { connection: 'close' } })).text()
  return text.split('\n').filter(line => (line.startsWith(`${name}{`) || line.startsWith(`${name} `)) && line.includes(labels)).reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' '))), 0)
}

/** How many requests ended with this status. */
export async function ended (service: Service, status: number): Promise<number> {
  return await metricOf(service, 'http_server_request_duration_seconds_count', `http_response_status_code="${status}"`)
}

export const resident = ({ pid }: Service): number => Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024
export const descriptors = ({ pid }: Service): number => readdirSync(`/proc/${pid}/fd`).filter(Boolean).length

/** The least heap in use of three collections. */
export async function heapOf (service: Service): Promise<number> {
  let least = Infinity
  for (let i = 0; i < 3; i++) {
    process.kill(service.pid, 'SIGWINCH')
    await delay(50)
    least = Math.min(least, await metricOf(service, 'nodejs_heap_size_used_bytes'))
  }
  return least
}

/** What no event tells: asked until it holds, for a minute. */
export async function until (what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  for (const end = Date.now() + 60_000; Date.now() < end; await delay(10)) if (await holds()) return
  throw new Error(`waited in vain: ${what}`)
}

/** Fulfils when something has not moved for a while: everything that can hold bytes is full. */
export async function stalled (read: () => number): Promise<number> {
  for (let last = -1; ; await delay(300)) {
    const now = read()
    if (now === last && now > 0) return now
    last = now
  }
}

/** A connection on which a request was sent and nothing is read. */
export async function paused (url: string, bytes: string): Promise<Socket> {
  const socket = connect({ host: '127.0.0.1', port: Number(new URL(url).port) }).on('error', () => {})
  socket.pause()
  await once(socket, 'connect')
  socket.write(bytes)
  return socket
}

/** Reads all in sips, with pauses between them, and calls `onSip` for each. */
export async function sip (socket: Socket, onSip: () => void): Promise<number> {
  let [read, next] = [0, 8 * MiB]
  socket.on('data', chunk => {
    read += chunk.length
    if (read < next) return
    next += 8 * MiB
    onSip()
    socket.pause()
    setTimeout(() => { socket.resume() }, 5)
  }).resume()
  await once(socket, 'close')
  return read
}

/** Writes as many bytes as the other side takes, and calls `onLast` with the last of them. */
export function pourInto (socket: Socket, head: string, size: number, onLast?: () => void): { sent: () => number } {
  const part = Buffer.alloc(64 * 1024, 'x')
  let sent = 0
  const pour = (): void => {
    while (sent < size && !socket.destroyed) {
      const chunk = part.subarray(0, size - sent)
      sent += chunk.length
      if (sent === size) onLast?.()
      if (!socket.write(chunk)) { socket.once('drain', pour); return }
    }
  }
  if (socket.listenerCount('error') === 0) socket.on('error', () => {})
  socket.write(head)
  pour()
  return { sent: () => sent }
}
