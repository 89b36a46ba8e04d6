import { createHash } from 'node:crypto'

/**
 * The usual limiters, written as the textbooks have them, each at its best: one call, the server's clock, no needless command.
 * KEYS: the subject. ARGV: window in microseconds, limit, now in microseconds ('' = the server's clock). Reply: 1 admitted, 0 denied,
 * and what is left.
 */
const begin = `#!lua
local w, limit, now = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
if not now then local t = redis.call('TIME') now = t[1] * 1000000 + t[2] end
`

/** Counts per bucket of the wall clock. */
const fixed = `${begin}
local bucket = KEYS[1] .. string.format(':%.0f', math.floor(now / w))
local n = redis.call('INCR', bucket)
if n == 1 then redis.call('PEXPIRE', bucket, math.ceil(w / 1000)) end
return {n <= limit and 1 or 0, math.max(limit - n, 0)}
`

/** The bucket of now, and the one before weighted by the part of it that a sliding window would still cover. */
const twoBucket = `${begin}
local bucket = math.floor(now / w)
local current = KEYS[1] .. string.format(':%.0f', bucket)
local n = tonumber(redis.call('GET', current)) or 0
local before = tonumber(redis.call('GET', KEYS[1] .. string.format(':%.0f', bucket - 1))) or 0
local weighted = math.floor(before * (1 - (now % w) / w)) + n
if weighted >= limit then return {0, 0} end
if redis.call('INCR', current) == 1 then redis.call('PEXPIRE', current, math.ceil(w / 500)) end
return {1, limit - weighted - 1}
`

/** The theoretical arrival time of the next request, with a burst of the limit. */
const gcra = `${begin}
local interval = w / limit
local arrival = math.max(tonumber(redis.call('GET', KEYS[1])) or now, now)
if arrival + interval - w > now then return {0, 0} end
arrival = arrival + interval
redis.call('SET', KEYS[1], string.format('%.0f', arrival), 'PX', math.ceil((arrival - now) / 1000))
return {1, math.floor((w - (arrival - now)) / interval)}
`

export interface TextbookScript { text: string, sha: string }

const named = (text: string): TextbookScript => ({ text, sha: createHash('sha1').update(text).digest('hex') })

export const textbook = { fixed: named(fixed), 'two-bucket': named(twoBucket), GCRA: named(gcra) }
