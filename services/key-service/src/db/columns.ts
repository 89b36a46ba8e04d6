import { bigint, customType, timestamp } from 'drizzle-orm/pg-core'

/** A transaction's 64-bit id; text here, because it may exceed what a number holds. */
export const xid8 = customType<{ data: string }>({ dataType: () => 'xid8' })
/** Milliseconds, as in every answer: what is stored is what is compared. */
export const instant = (name: string) => timestamp(name, { withTimezone: true, precision: 3, mode: 'date' })
export const version = (name: string) => bigint(name, { mode: 'number' })
