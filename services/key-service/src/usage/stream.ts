import { usageField, usageStream } from '@keygate/contracts'
import type { RedisConnection } from '@keygate/rate-limit'

const group = 'key-service'

/** One entry of the stream, as it lies there. */
export interface Entry { id: string, text: string | undefined }

export interface UsageStream {
  /** The next entries that no consumer has had, at most `count`. */
  read: (count: number) => Promise<Entry[]>
  /** Entries that another consumer had and did not finish in time; they are this one's now. */
  takeOver: (count: number) => Promise<Entry[]>
  /** These are stored: nobody needs them any more. */
  finish: (entries: ReadonlyArray<Pick<Entry, 'id'>>) => Promise<void>
  /** How many entries wait, and when the oldest was written, Unix milliseconds; null: none waits. */
  backlog: () => Promise<{ entries: number, oldestMs: number | null }>
  /** Forgets consumers that have nothing and have not been heard of for so long. Default: an hour, in milliseconds. */
  forgetDead: (silentMs?: number) => Promise<void>
}

type Raw = [id: string, fields: string[] | null]
const longAgoMs = 3_600_000

/**
 * The stream as a consumer group sees it (Redis: XREADGROUP, XAUTOCLAIM). An entry that was read is gone only when it has been finished: a
 * consumer that dies in between leaves it to the others.
 *
 * @param name of this consumer: one life of one process. @param lateMs after so long another consumer's entries are taken over.
 * @throws {StoreUnavailableError} each of its methods, when Redis cannot answer.
 */
export function createUsageStream (connection: RedisConnection, name: string, lateMs: number): UsageStream {
  /** The group is part of Redis's memory: one that came back empty has none. */
  async function inGroup<T> (work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (error) {
      if (!(error as Error).message.includes('NOGROUP')) throw error
      await connection.call(async client => await client.xgroup('CREATE', usageStream, group, '0', 'MKSTREAM').catch((error: Error) => {
        if (!error.message.startsWith('BUSYGROUP')) throw error
      }))
      return await work()
    }
  }

  return {
    read: async count => await inGroup(async () => {
      const reply = await connection.call(async client => await client.xreadgroup('GROUP', group, name, 'COUNT', count, 'STREAMS', usageStream, '>')) as Array<[string, Raw[]]> | null
      return toEntries(reply?.[0]?.[1] ?? [])
    }),
    takeOver: async count => await inGroup(async () => {
      const [, claimed, gone = []] = await connection.call(async client => await client.xautoclaim(usageStream, group, name, lateMs, '0', 'COUNT', count)) as [string, Raw[], string[]?]
      return [...toEntries(claimed), ...gone.map(id => ({ id, text: undefined }))]
    }),
    finish: async entries => {
      if (entries.length === 0) return
      const ids = entries.map(({ id }) => id)
      await connection.call(async client => await client.pipeline().xack(usageStream, group, ...ids).xdel(usageStream, ...ids).exec())
    },
    backlog: async () => {
      const [length, first] = await connection.call(async client => await client.pipeline().xlen(usageStream).xrange(usageStream, '-', '+', 'COUNT', 1).exec()) ?? []
      const oldest = (first?.[1] as Raw[] | undefined)?.[0]?.[0]
      return { entries: Number(length?.[1] ?? 0), oldestMs: oldest === undefined ? null : Number(oldest.split('-')[0]) }
    },
    forgetDead: async (silentMs = longAgoMs) => {
      await inGroup(async () => {
        const consumers = await connection.call(async client => await client.xinfo('CONSUMERS', usageStream, group)) as Array<Array<string | number>>
        for (const consumer of consumers.map(toFields)) {
          if (consumer['name'] === name || Number(consumer['pending']) > 0 || Number(consumer['idle']) < silentMs) continue
          await connection.call(async client => await client.xgroup('DELCONSUMER', usageStream, group, String(consumer['name'])))
        }
      })
    }
  }
}

/** An entry that was trimmed while somebody had it has no fields any more. */
function toEntries (raw: Raw[]): Entry[] {
  return raw.map(([id, fields]) => ({ id, text: fields === null ? undefined : fields[fields.indexOf(usageField) + 1] }))
}

function toFields (list: Array<string | number>): Record<string, string | number> {
  return Object.fromEntries(Array.from({ length: list.length / 2 }, (_, i) => [String(list[2 * i]), list[2 * i + 1] as string | number]))
}
