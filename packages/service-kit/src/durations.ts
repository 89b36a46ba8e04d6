import type { Histogram, MetricObjectWithValues, MetricValue, Registry } from 'prom-client'

/** Upper bounds of OpenTelemetry's `http.server.request.duration`, seconds (semantic conventions for HTTP metrics). */
const bounds = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]

interface Series {
  method: string
  route: string
  status: number
  /** How many fell between a bound and the one before; the last: beyond all. */
  counts: number[]
  sum: number
}

/**
 * The durations of requests as a histogram of a registry. What prom-client's own does with each observation (to check the labels and spell
 * them out) cost 4 us of a request, more than to route it; here that is done when somebody reads the metrics.
 */
export class RequestDurations {
  readonly name = 'http_server_request_duration_seconds'
  readonly help = 'Duration of HTTP requests, in seconds.'
  readonly type = 'histogram'
  readonly aggregator = 'sum'
  readonly #series = new Map<string, Map<string, Map<number, Series>>>()

  constructor (registry: Registry) {
    registry.registerMetric(this as unknown as Histogram) // `get` is what a registry needs of a metric
  }

  /** @param route one of few, never a path as it came: each new one is kept for ever. */
  observe (method: string, route: string, status: number, seconds: number): void {
    const series = this.#series.get(route)?.get(method)?.get(status) ?? this.#add(method, route, status)
    let i = 0
    while (i < bounds.length && seconds > (bounds[i] as number)) i++
    series.counts[i] = (series.counts[i] as number) + 1
    series.sum += seconds
  }

  async get (): Promise<MetricObjectWithValues<MetricValue<string>>> {
    const all = [...this.#series.values()].flatMap(methods => [...methods.values()].flatMap(statuses => [...statuses.values()]))
    return { name: this.name, help: this.help, type: this.type, aggregator: this.aggregator, values: all.flatMap(series => this.#valuesOf(series)) } as unknown as MetricObjectWithValues<MetricValue<string>>
  }

  reset (): void { this.#series.clear() }

  #add (method: string, route: string, status: number): Series {
    const ofRoute = this.#series.get(route) ?? new Map<string, Map<number, Series>>()
    this.#series.set(route, ofRoute)
    const ofMethod = ofRoute.get(method) ?? new Map<number, Series>()
    ofRoute.set(method, ofMethod)
    const series = { method, route, status, counts: new Array<number>(bounds.length + 1).fill(0), sum: 0 }
    ofMethod.set(status, series)
    return series
  }

  /** Buckets count all up to their bound (Prometheus's exposition formats, Histogram). */
  #valuesOf ({ method, route, status, counts, sum }: Series): Array<{ metricName: string, labels: Record<string, string | number>, value: number }> {
    const labels = { http_request_method: method, http_route: route, http_response_status_code: status }
    let count = 0
    const buckets = counts.map((n, i) => {
      count += n
      return { metricName: `${this.name}_bucket`, labels: { le: bounds[i] ?? '+Inf', ...labels }, value: count }
    })
    return [...buckets, { metricName: `${this.name}_sum`, labels, value: sum }, { metricName: `${this.name}_count`, labels, value: count }]
  }
}
