import { Histogram, Registry } from 'prom-client'
import { test } from 'tap'
import { RequestDurations } from '../src/durations.ts'

test('durations are told as prom-client tells them', async t => {
  const [ours, theirs] = [new Registry(), new Registry()]
  for (const registry of [ours, theirs]) registry.setDefaultLabels({ service: 'test' })
  const durations = new RequestDurations(ours)
  const histogram = new Histogram({
    name: durations.name,
    help: durations.help,
    labelNames: ['http_request_method', 'http_route', 'http_response_status_code'],
    buckets: [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10],
    registers: [theirs]
  })
  const linesOf = async (registry: Registry): Promise<string[]> => (await registry.metrics()).split('\n').map(line => line.replace(/\{(.*)\}/, (_, labels: string) => `{${labels.split(',').sort().join(',')}}`)).sort()
  t.same(await linesOf(ours), await linesOf(theirs), 'nothing yet')

  const routes = ['/forms/{formId}', 'unmatched', '/a "quoted" \\ one\nof two lines']
  for (const seconds of [0, 0.004, 0.005, 0.0051, 0.01, 0.1, 0.3, 1, 2.5, 9.99, 10, 10.01, 1e6]) {
    for (const [i, route] of routes.entries()) {
      const [method, status] = i === 1 ? ['POST', 404] as const : ['GET', seconds > 1 ? 499 : 200] as const
      durations.observe(method, route, status, seconds)
      histogram.observe({ http_request_method: method, http_route: route, http_response_status_code: status }, seconds)
    }
  }
  t.same(await linesOf(ours), await linesOf(theirs))
  t.ok((await ours.metrics()).includes('http_server_request_duration_seconds_bucket{le="10",http_request_method="POST",http_route="unmatched",http_response_status_code="404",service="test"} 11'))

  ours.resetMetrics()
  theirs.resetMetrics()
  t.same(await linesOf(ours), await linesOf(theirs), 'and nothing again')
})
