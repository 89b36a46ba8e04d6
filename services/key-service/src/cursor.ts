import { invalidCursor } from './errors.ts'

/** Where a page ended: the last row's value of the sorted column, and its id, which decides between equal values. */
export interface Position { value: string, id: string }

/** A page's end as an opaque text. It names its order, because in another order it would point nowhere. */
export function writeCursor (sort: string, { value, id }: Position): string {
  return Buffer.from(JSON.stringify([sort, value, id])).toString('base64url')
}

/**
 * @param accepts what a value and an id look like in this list: both go into a statement, where a wrong type would be an error.
 * @throws {ProblemError} 400 for anything that `writeCursor` has not made for this order.
 */
export function readCursor (cursor: string, sort: string, accepts: { value: (value: string) => boolean, id: RegExp }): Position {
  let parts: unknown
  try {
    parts = JSON.parse(Buffer.from(cursor, 'base64url').toString('utf8'))
  } catch {
    throw invalidCursor()
  }
  const [itsSort, value, id] = Array.isArray(parts) ? parts as unknown[] : []
  if (itsSort !== sort || typeof value !== 'string' || typeof id !== 'string' || !accepts.value(value) || !accepts.id.test(id)) throw invalidCursor()
  return { value, id }
}

/** A moment as `toISOString` writes it, and one that there is: not the 41st of a month, nor the year 0, which PostgreSQL does not know. */
export function isInstant (value: string): boolean {
  const moment = new Date(value)
  return /^\d{4}-/.test(value) && !value.startsWith('0000') && !Number.isNaN(moment.getTime()) && moment.toISOString() === value
}
