import { freePort, isPortFree } from './free-port.ts'
import type { LocalRun } from './local-file.ts'

export interface LocalPorts { gateways: [number, ...number[]], keyService: number, upstream: number, postgres: number, redis: number }

const preferred = { 'gateway 1': 8080, 'gateway 2': 8081, 'key-service': 8082, upstream: 4000 }

/**
 * The ports of a local run: the well-known ones, else the next free; `say` is told about each that is not the well-known one.
 * The stores keep the ports of the earlier run, which the user may have in a tool, while they are free.
 *
 * @param withRedis false: one gateway, and for `redis` a new port: nobody's Redis is expected to appear there.
 */
export async function localPorts (earlier: LocalRun | undefined, say: (line: string) => void, withRedis = true): Promise<LocalPorts> {
  const used = new Set<number>(Object.values(preferred))
  const choose = async (name: keyof typeof preferred) => {
    const wanted = preferred[name]
    used.delete(wanted)
    const port = await freePort(wanted, used)
    used.add(wanted).add(port)
    if (port !== wanted) say(`Port ${wanted} is taken: ${name} uses ${port}.`)
    return port
  }
  const keep = async (url: string | null | undefined) => {
    const before = typeof url === 'string' && URL.canParse(url) ? Number(new URL(url).port) : 0
    const port = before > 0 && !used.has(before) && await isPortFree(before) ? before : await freePort(undefined, used)
    used.add(port)
    return port
  }
  return {
    gateways: [await choose('gateway 1'), ...withRedis ? [await choose('gateway 2')] : []],
    keyService: await choose('key-service'),
    upstream: await choose('upstream'),
    postgres: await keep(earlier?.postgres),
    redis: await keep(withRedis ? earlier?.redis : null)
  }
}
