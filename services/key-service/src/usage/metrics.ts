import { Counter, Gauge, type Registry } from '@keygate/service-kit'
import type { UsageStream } from './stream.ts'

export interface UsageMetrics {
  stored: (batches: number, repeated: number) => void
  unreadable: () => void
  trimmed: () => void
}

/** Metrics of the way from the stream to PostgreSQL. The backlog is read when it is asked for; without Redis it is NaN. */
export function createUsageMetrics (registry: Registry, stream: UsageStream): UsageMetrics {
  const counter = (name: string, help: string) => new Counter({ name, help, registers: [registry] })
  const gauge = (name: string, help: string, read: (backlog: Awaited<ReturnType<UsageStream['backlog']>>) => number) => new Gauge({
    name,
    help,
    registers: [registry],
    async collect () {
      const backlog = await stream.backlog().catch(() => undefined)
      this.set(backlog === undefined ? NaN : read(backlog))
    }
  })
  gauge('key_service_usage_backlog_batches', 'Batches of usage that lie in Redis.', ({ entries }) => entries)
  gauge('key_service_usage_oldest_batch_seconds', 'For how long the oldest of them has waited, in seconds.', ({ oldestMs }) => oldestMs === null ? 0 : Math.max(0, (Date.now() - oldestMs) / 1000))
  const stored = counter('key_service_usage_batches_total', 'Batches of usage that were stored.')
  const repeated = counter('key_service_usage_repeated_batches_total', 'Batches that came again and were left out.')
  const unreadable = counter('key_service_usage_unreadable_total', 'Entries of the stream that are no batches.')
  const trimmed = counter('key_service_usage_trimmed_total', 'Entries that left the stream because of its cap while somebody had them.')
  return {
    stored: (batches, again) => { stored.inc(batches); repeated.inc(again) },
    unreadable: () => { unreadable.inc() },
    trimmed: () => { trimmed.inc() }
  }
}
