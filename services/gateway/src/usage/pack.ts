import type { UsageBatch, UsageOfKey } from '@keygate/contracts'

type Lists = Pick<UsageBatch, 'lines' | 'incarnations' | 'keys' | 'rows'>
type Field = keyof Lists

/** The lines come first: should a later part be lost, they show that something is missing. */
const fields: Field[] = ['lines', 'incarnations', 'keys', 'rows']

/** What a batch's own brackets, names and number take at most, bytes. */
const frame = 200

/**
 * Writes batches as JSON, each of at most `maxBytes` (UTF-8) unless a single item is longer: a Redis that takes one large entry lets everybody
 * else wait. They are made one by one, when they are asked for: to write down all of a long outage at once would hold up requests.
 *
 * @param head everything but the lists; `nextSeq` gives each batch its number. At least one batch is made, though it may be empty.
 */
export function * pack (lists: { [F in Field]: Iterable<Lists[F][number]> }, head: Omit<UsageBatch, Field | 'seq'>, nextSeq: () => number, maxBytes: number): Generator<string, void> {
  const headText = JSON.stringify(head).slice(0, -1)
  const room = maxBytes - Buffer.byteLength(headText) - frame
  let open = emptyPart()
  const close = (): string => {
    const texts = fields.map(field => `"${field}":[${open.items[field].join(',')}]`)
    open = emptyPart()
    return `${headText},"seq":${nextSeq()},${texts.join(',')}}`
  }
  let hasMade = false
  for (const field of fields) {
    for (const text of field === 'keys' ? keyTexts(lists.keys, room / 4) : texts(lists[field])) {
      const bytes = Buffer.byteLength(text) + 1
      if (open.bytes > 0 && open.bytes + bytes > room) {
        yield close()
        hasMade = true
      }
      open.items[field].push(text)
      open.bytes += bytes
    }
  }
  if (open.bytes > 0 || !hasMade) yield close()
}

function emptyPart (): { items: Record<Field, string[]>, bytes: number } {
  return { items: { lines: [], incarnations: [], keys: [], rows: [] }, bytes: 0 }
}

function * texts (items: Iterable<unknown>): Generator<string> {
  for (const item of items) yield JSON.stringify(item)
}

const lists = ['secrets', 'sums', 'callers'] as const

/** Each key as JSON; one with very much in several pieces, each of about `maxBytes`. */
function * keyTexts (keys: Iterable<UsageOfKey>, maxBytes: number): Generator<string> {
  for (const { projectId, keyId, ...key } of keys) {
    const piece = (items: string[][]): string => `{"projectId":${JSON.stringify(projectId)},"keyId":${JSON.stringify(keyId)},${lists.map((list, i) => `"${list}":[${items[i]?.join(',') ?? ''}]`).join(',')}}`
    let [items, bytes]: [string[][], number] = [[[], [], []], 0]
    for (const [i, list] of lists.entries()) {
      for (const text of texts(key[list])) {
        const more = Buffer.byteLength(text) + 1
        if (bytes > 0 && bytes + more > maxBytes) {
          yield piece(items);
          [items, bytes] = [[[], [], []], 0]
        }
        items[i]?.push(text)
        bytes += more
      }
    }
    if (bytes > 0) yield piece(items)
  }
}
