const dateShape = /^(\d{4})-(\d\d)-(\d\d)$/
// RFC 3339 section 5.6. The offset is required: a time without one would mean another moment on another machine.
const dateTimeShape = /^(\d{4})-(\d\d)-(\d\d)[Tt]([01]\d|2[0-3]):([0-5]\d):([0-5]\d)(\.\d{1,9})?([Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)$/

/** The last moment that four digits of year can write. */
const latest = Date.UTC(9999, 11, 31, 23, 59, 59, 999)

/**
 * Reads when a key ends: a date-time, or a bare date that means the end of that day in UTC (its last millisecond).
 *
 * Parts of a millisecond are cut off, so a key never lives longer than was asked for.
 *
 * @param now the database's clock, in Unix milliseconds.
 * @returns the moment, or what is wrong with it.
 */
export function parseExpiry (text: string, now: number): { at: Date } | { fault: string } {
  const date = dateShape.exec(text)
  const parts = date ?? dateTimeShape.exec(text)
  if (parts === null || !isCalendarDay(Number(parts[1]), Number(parts[2]), Number(parts[3]))) {
    return { fault: 'must be a date-time such as 2027-01-31T12:00:00Z, or a date such as 2027-01-31' }
  }
  const ms = Date.parse(date === null ? cutFraction(text) : `${text}T23:59:59.999Z`)
  if (!(ms <= latest)) return { fault: 'must not be after the year 9999' }
  if (ms <= now) return { fault: 'must be in the future' }
  return { at: new Date(ms) }
}

/** The end of the day, in UTC, that is so many days from now: a bare date is good until then. */
export function endOfDayIn (days: number, now: number): Date {
  const day = new Date(now + days * 86_400_000).toISOString().slice(0, 10)
  return new Date(`${day}T23:59:59.999Z`)
}

/** The engine's own parser rolls 30 February over into March. */
function isCalendarDay (year: number, month: number, day: number): boolean {
  return month >= 1 && month <= 12 && day >= 1 && day <= new Date(Date.UTC(2000 + year % 400, month, 0)).getUTCDate()
}

function cutFraction (text: string): string {
  return text.toUpperCase().replace(/\.(\d{1,3})\d*/, (_all, digits: string) => `.${digits.padEnd(3, '0')}`)
}
