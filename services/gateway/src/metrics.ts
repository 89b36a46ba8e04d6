import { Counter, Gauge, type Registry } from 'prom-client'

/** The gateway's own metrics. Labels are enums, never ids. */
export function createMetrics (registry: Registry) {
  const counter = <L extends string>(name: string, help: string, labelNames: L[]) => new Counter({ name, help, labelNames, registers: [registry] })
  return {
    decisions: counter('gateway_ratelimit_decisions_total', 'Decisions of the limiter, by outcome and by where they were made.', ['outcome', 'store']),
    refusals: counter('gateway_refusals_total', 'Refused requests, by problem code.', ['code']),
    verifications: counter('gateway_verifications_total', 'Calls to key-service, by result.', ['result']),
    staleRounds: counter('gateway_stale_rounds_total', 'Records that Redis said are not current.', []),
    versionAhead: counter('gateway_version_ahead_total', 'Times that Redis knew a newer version than PostgreSQL.', []),
    unconfirmed: counter('gateway_unconfirmed_total', 'Requests judged by a record that neither Redis nor key-service could confirm.', []),
    /** What is read when the metrics are. */
    observe: ({ replicas, isAlone }: { replicas: () => number, isAlone: () => boolean }) => {
      const gauge = (name: string, help: string, read: () => number) => new Gauge({ name, help, registers: [registry], collect () { this.set(read()) } })
      gauge('gateway_replicas', 'Gateways seen in the last minute: between so many a limit is shared while Redis is away.', replicas)
      gauge('gateway_ratelimit_degraded', '1 while this replica counts alone because Redis does not answer.', () => Number(isAlone()))
    },
    storeFailures: counter('gateway_store_failures_total', 'Decisions that Redis could not make.', [])
  }
}

export type Metrics = ReturnType<typeof createMetrics>
