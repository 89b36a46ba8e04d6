import type { DecideOutcome, LocalOutcome } from '@keygate/rate-limit'
import { Counter, Gauge, type Registry } from 'prom-client'

/** The gateway's own metrics. Labels are enums, never ids. */
export function createMetrics (registry: Registry) {
  const counter = <L extends string>(name: string, help: string, labelNames: L[]) => new Counter({ name, help, labelNames, registers: [registry] })
  return {
    decided: countDecisions(registry),
    refusals: counter('gateway_refusals_total', 'Refused requests, by problem code.', ['code']),
    verifications: counter('gateway_verifications_total', 'Calls to key-service, by result.', ['result']),
    staleRounds: counter('gateway_stale_rounds_total', 'Records that Redis said are not current.', []),
    versionAhead: counter('gateway_version_ahead_total', 'Times that Redis knew a newer version than PostgreSQL.', []),
    unconfirmed: counter('gateway_unconfirmed_total', 'Requests judged by a record that neither Redis nor key-service could confirm.', []),
    streamsEnded: counter('gateway_streams_ended_total', 'Open answers that were ended because their key is refused by now.', ['code']),
    catalogueReloads: counter('gateway_catalogue_reloads_total', 'Attempts to read the catalogue anew, by result: taken, faulty, or failed when it could not be read.', ['result']),
    /** What is read when the metrics are. */
    observe: ({ replicas, isAlone, dropped }: { replicas: () => number, isAlone: () => boolean, dropped: () => Record<string, number> }) => {
      const gauge = (name: string, help: string, read: () => number) => new Gauge({ name, help, registers: [registry], collect () { this.set(read()) } })
      gauge('gateway_replicas', 'Gateways seen in the last minute: between so many a limit is shared while Redis is away.', replicas)
      registry.registerMetric(new Counter({
        name: 'gateway_usage_dropped_total',
        help: 'Requests and rows of the log that did not fit while Redis took no usage.',
        labelNames: ['what'],
        registers: [],
        collect () {
          this.reset()
          for (const [what, count] of Object.entries(dropped())) this.inc({ what }, count)
        }
      }))
      gauge('gateway_ratelimit_degraded', '1 while this replica counts alone because Redis does not answer.', () => Number(isAlone()))
    },
    storeFailures: counter('gateway_store_failures_total', 'Decisions that Redis could not make.', [])
  }
}

export type Metrics = ReturnType<typeof createMetrics>

type Outcome = DecideOutcome['outcome'] | LocalOutcome['outcome']

/** Every request is counted here: into numbers of our own, which the metric takes over when somebody reads it. */
function countDecisions (registry: Registry): (outcome: Outcome, store: 'redis' | 'local') => void {
  const counts: Record<'redis' | 'local', Partial<Record<Outcome, number>>> = { redis: {}, local: {} }
  registry.registerMetric(new Counter({
    name: 'gateway_ratelimit_decisions_total',
    help: 'Decisions of the limiter, by outcome and by where they were made.',
    labelNames: ['outcome', 'store'],
    registers: [],
    collect () {
      this.reset()
      for (const [store, outcomes] of Object.entries(counts)) for (const [outcome, count] of Object.entries(outcomes)) this.inc({ outcome, store }, count)
    }
  }))
  return (outcome, store) => { counts[store][outcome] = (counts[store][outcome] ?? 0) + 1 }
}
