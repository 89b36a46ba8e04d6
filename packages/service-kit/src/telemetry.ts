import { createServer, type Server } from 'node:http'
import { isIPv6, type AddressInfo } from 'node:net'
import fp from 'fastify-plugin'
import { Registry, collectDefaultMetrics } from 'prom-client'
import { RequestDurations } from './durations.ts'
import { routeLabelOf } from './request-end.ts'

/** A registry with the process's own metrics; each room adds its metrics to it. Labels are enums, never ids. */
export function createRegistry (service: string): Registry {
  const registry = new Registry()
  registry.setDefaultLabels({ service })
  collectDefaultMetrics({ register: registry })
  return registry
}

/** For an app of `createServer`: rate, errors and duration of requests by OpenTelemetry's name and buckets (semantic conventions for HTTP servers). */
export const telemetry = fp<{ registry: Registry }>(async (app, { registry }) => {
  const durations = new RequestDurations(registry)
  app.onRequestEnd((request, { status, seconds }) => { durations.observe(request.method, routeLabelOf(request), status, seconds) })
}, { name: 'telemetry' })

/** Metrics on a port of their own: what is public never shows them. Port 0 takes a free one. */
export async function startMetricsServer (registry: Registry, host: string, port: number): Promise<{ url: string, close: () => Promise<void> }> {
  const server: Server = createServer((request, response) => {
    if (request.url !== '/metrics') { response.writeHead(404).end(); return }
    registry.metrics().then(
      text => response.writeHead(200, { 'content-type': registry.contentType }).end(text),
      () => response.writeHead(500).end()
    )
  })
  await new Promise<void>((resolve, reject) => { server.once('error', reject).listen(port, host, resolve) })
  return {
    url: `http://${isIPv6(host) ? `[${host}]` : host}:${(server.address() as AddressInfo).port}/metrics`,
    close: async () => {
      server.closeAllConnections()
      await new Promise(resolve => server.close(resolve))
    }
  }
}
