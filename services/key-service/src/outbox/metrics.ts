import { Counter, Gauge, type Registry } from '@keygate/service-kit'
import type { Database } from '../db/database.ts'
import { measureBacklog, type Backlog } from './outbox.ts'

export interface OutboxMetrics { delivered: (rows: number) => void, failed: () => void }

/** Metrics of the way from a commit to Redis. The backlog is read when it is asked for; without PostgreSQL it is NaN. */
export function createOutboxMetrics (registry: Registry, database: Database): OutboxMetrics {
  const gauge = (name: string, help: string, read: (backlog: Backlog) => number) => new Gauge({
    name,
    help,
    registers: [registry],
    async collect () {
      const backlog = await database.run(measureBacklog).catch(() => undefined)
      this.set(backlog === undefined ? NaN : read(backlog))
    }
  })
  gauge('key_service_outbox_undelivered', 'Changes that Redis has not confirmed.', backlog => backlog.rows)
  gauge('key_service_outbox_oldest_undelivered_seconds', 'For how long the oldest change has waited for Redis, in seconds.', backlog => backlog.oldestSeconds)
  const deliveries = new Counter({ name: 'key_service_outbox_deliveries_total', help: 'Changes confirmed by Redis.', registers: [registry] })
  const failures = new Counter({ name: 'key_service_relay_failures_total', help: 'Rounds of the relay that failed.', registers: [registry] })
  return { delivered: rows => { deliveries.inc(rows) }, failed: () => { failures.inc() } }
}
