import { usageBoots, usageField, usageStream } from '@keygate/contracts'
import type { RedisConnection } from '@keygate/rate-limit'

/** Batches that lie in Redis until key-service has them. */
export interface UsageStream {
  /**
   * Appends a batch, and makes room when the stream is over its cap.
   *
   * @throws {StoreUnavailableError} Redis did not say that it has it; it may.
   */
  append: (batch: string) => Promise<void>
}

/** Most of Redis's memory that the stream may take, whatever is configured: the limiter has to live there too. */
const shareOfMemory = 1 / 8
/** Room is made for more than one batch, so that it need not be made at each. */
const afterTrimming = 0.9
/** The stream is measured whenever so much of the cap was appended from here: several gateways together go beyond it by this much each. */
const measuredShare = 1 / 64
/** Entries differ in size, so what is trimmed by their number may not suffice at once. */
const rounds = 20

/**
 * The stream is capped by the memory that it takes, as Redis itself measures it: a batch may be of 1 or of 256 KiB, so a number of entries says
 * nothing, and neither does a sample of them (`MEMORY USAGE` looks at the oldest, which may be the small ones). All of it is measured, which costs
 * Redis a millisecond or so, but not each time. What is over the cap goes, the oldest first; whoever is missed by that is told by the running totals.
 *
 * @param bootId is written down beside the stream before anything is appended.
 */
export function createUsageStream (connection: RedisConnection, capBytes: number, bootId: string): UsageStream {
  let cap = capBytes
  let unmeasured = Infinity
  let generation = -1
  let knownIn = -1

  /** Another Redis may be behind the connection, with another limit. */
  async function readMemoryLimit (): Promise<void> {
    const now = connection.generation
    const limit = Number(/^maxmemory:(\d+)/m.exec(await connection.call(async client => await client.info('memory')))?.[1] ?? 0)
    cap = limit > 0 ? Math.min(capBytes, limit * shareOfMemory) : capBytes
    unmeasured = Infinity
    generation = now
  }

  async function makeRoom (): Promise<void> {
    for (let round = 1; round <= rounds; round++) {
      const [used, entries] = await connection.call(async client => await Promise.all([client.memory('USAGE', usageStream, 'SAMPLES', 0), client.xlen(usageStream)]))
      unmeasured = 0
      if (used === null || used <= cap || entries === 0) return
      await connection.call(async client => await client.xtrim(usageStream, 'MAXLEN', Math.floor(entries * afterTrimming * cap / used)))
    }
    unmeasured = Infinity // the next one goes on
  }

  return {
    append: async batch => {
      if (connection.generation !== generation) {
        await readMemoryLimit()
        await makeRoom().catch(() => {})
      }
      try {
        if (knownIn !== generation) {
          await connection.call(async client => await client.sadd(usageBoots, bootId))
          knownIn = generation
        }
        await connection.call(async client => await client.xadd(usageStream, '*', usageField, batch))
      } catch (error) {
        // Redis may have no memory left because of this very stream, after its limit was changed: the next attempt finds out.
        if (/\bOOM\b/.test((error as Error).message)) generation = -1
        throw error
      }
      unmeasured += Buffer.byteLength(batch)
      // The batch is there, whatever becomes of this.
      if (unmeasured >= cap * measuredShare) await makeRoom().catch(() => {})
    }
  }
}
