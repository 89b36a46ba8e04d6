import { createServer, type Server } from 'node:http'
import { isIPv6, type AddressInfo } from 'node:net'
import fp from 'fastify-plugin'
import { Histogram, Registry, collectDefaultMetrics } from 'prom-client'

/** A registry with the process's own metrics; each room adds its metrics to it. Labels are enums, never ids. */
export function createRegistry (service: string): Registry {
  const registry = new Registry()
  registry.setDefaultLabels({ service })
  collectDefaultMetrics({ register: registry })
  return registry
}

/** For an app of `createServer`: rate, errors and duration of requests by OpenTelemetry's name and buckets (semantic conventions for HTTP servers). */
export const telemetry = fp<{ registry: Registry }>(async (app, { registry }) => {
  const duration = new Histogram({
    name: 'http_server_request_duration_seconds',
    help: 'Duration of HTTP requests, in seconds.',
    labelNames: ['http_request_method', 'http_route', 'http_response_status_code'],
    buckets: [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10],
    registers: [registry]
  })
  app.onRequestEnd((request, { status, seconds }) => {
    duration.observe({
      http_request_method: request.method,
      http_route: request.routeOptions.url ?? 'unmatched',
      http_response_status_code: status
    }, seconds)
  })
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
