import { defineScript } from './script.ts'

/**
 * The one script of admission (design.md section 5): is this the current version? not expired? then every policy, all or nothing.
 *
 * KEYS: [versions hash, prefix of the admission counters,] one log per policy. All lie in one slot.
 * ARGV: 1 now in microseconds ('' = the server's clock; set only in tests), 2 cost, 3 not-after in ms ('' = none),
 *       4 a fresh incarnation ('' = no versions, then KEYS holds logs alone), 5 fence ('' = none), 6 key id, 7 key version,
 *       8 project version, 9 boot id of the gateway, 10 how many such requests there are; then per policy: 's' or 'f', window in
 *       microseconds, limit.
 * Reply: {code, ...}: 1 all admitted / 0 some or all limited, now in microseconds, how many were admitted, then per policy remaining
 *        after them, reset ms, retry ms of those that were limited (-1: never, 0: not denied); 2 stale, incarnation, key version,
 *        project version (-1: not there); 3 expired, now in microseconds.
 *
 * Several requests of one key that come at once are one call: the first so many as fit are admitted, as if each had been alone, one
 * behind the other at the same moment.
 *
 * A clock that stepped back by a window or less is held at the log's last entry, and all waits are told from the real clock, so
 * that they suffice; until it has caught up they may be longer than the window, never longer than two. After a longer step the
 * log is re-dated so that its last entry is now.
 *
 * `#!lua` makes memory pressure an error up front: without it a script whose first write is a removal grows past maxmemory.
 */
export const decideScript = defineScript(`#!lua
local floor, ceil = math.floor, math.ceil
local time = tonumber(ARGV[1])
if not time then
  local t = redis.call('TIME')
  time = t[1] * 1000000 + t[2]
end
local cost = tonumber(ARGV[2])
local versioned = ARGV[4] ~= ''
local first = versioned and 3 or 1

if versioned then
  local hash = KEYS[1]
  local stored = redis.call('HMGET', hash, '#', ARGV[6], '*')
  local incarnation, key, project = stored[1], tonumber(stored[2] or nil), tonumber(stored[3] or nil)
  if not incarnation then -- an empty memory gets a name before anything is compared
    incarnation = ARGV[4]
    redis.call('HSET', hash, '#', incarnation)
  end
  local keySeen, projectSeen = tonumber(ARGV[7]), tonumber(ARGV[8])
  if ARGV[5] == incarnation then -- the look-up was begun for this very memory: what it found may be raised
    if not key or key < keySeen then key = keySeen redis.call('HSET', hash, ARGV[6], ARGV[7]) end
    if not project or project < projectSeen then project = projectSeen redis.call('HSET', hash, '*', ARGV[8]) end
  end
  if key ~= keySeen or project ~= projectSeen then return {2, incarnation, key or -1, project or -1} end
end

local notAfter = tonumber(ARGV[3])
if notAfter and time >= notAfter * 1000 then return {3, time} end

-- A stamp as text. Never time .. '': that rounds 16 digits to 14.
local function text(stamp) return string.format('%.0f', stamp) end

-- Appends in portions: a call of Redis costs more than an entry.
local function append(log, stamps)
  for from = 1, #stamps, 1000 do redis.call('RPUSH', log, unpack(stamps, from, math.min(from + 999, #stamps))) end
end

-- Phase 1 judges every policy and changes nothing, except that a log from the future is re-dated: also by a request that is
-- denied or only looks, because a log that kept its dates would stand still.
local asked = tonumber(ARGV[10])
local admitted, plans, reply = asked, {}, {1, time}
for i = first, #KEYS do
  local a = 11 + (i - first) * 3
  local log, w, limit, now = KEYS[i], tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]), time
  local plan = {log = log, w = w, fixed = ARGV[a] == 'f'}
  local used, oldest, base = 0, nil, 0
  if plan.fixed then
    local state = redis.call('GET', log)
    if state then
      local start, count = string.match(state, '^(%d+) (%d+)$')
      start, count = tonumber(start), tonumber(count)
      if start > now then -- the server's clock stepped back
        if start - now > w then -- by more than a window: the window begins anew, with what it holds
          start = now
          redis.call('SET', log, text(start) .. ' ' .. text(count), 'PX', ceil(w / 1000))
        else now = start end -- by a little: hold the clock
      end
      if now - start < w then used, oldest = count, start end
    end
  else
    local head = redis.call('LINDEX', log, 0)
    if head then
      oldest = tonumber(head)
      used = redis.call('LLEN', log)
      local last = tonumber(redis.call('LINDEX', log, -1))
      if last > now then -- the server's clock stepped back
        if last - now > w then -- by more than a window: re-date the log and keep the ages
          local shift, all = last - now, redis.call('LRANGE', log, 0, -1)
          for j = 1, #all do all[j] = text(all[j] - shift) end
          redis.call('DEL', log)
          append(log, all)
          redis.call('PEXPIRE', log, ceil(w / 1000))
          oldest, last = oldest - shift, now
        else now = last end -- by a little: hold the clock
      end
      local cut = now - w -- live if later than this: an entry exactly a window old is free again
      if last <= cut then base, used, oldest = used, 0, nil
      elseif oldest <= cut then -- gallop, then bisect, to the first live entry
        local low, step, high, value = 0, 1, 1, nil
        while true do
          if high >= used - 1 then high, value = used - 1, last break end
          value = tonumber(redis.call('LINDEX', log, high))
          if value > cut then break end
          low = high step = step * 2 high = high + step
        end
        while high - low > 1 do
          local middle = floor((low + high) / 2)
          local v = tonumber(redis.call('LINDEX', log, middle))
          if v > cut then high, value = middle, v else low = middle end
        end
        base, used, oldest = high, used - high, value
      end
    end
  end
  plan.now, plan.used, plan.oldest, plan.base = now, used, oldest, base
  plan.limit = limit
  if cost > 0 then admitted = math.max(math.min(admitted, floor((limit - used) / cost)), 0) end
  plans[#plans + 1] = plan
end

-- When those that are limited may come again: the log as it is, with what is about to be charged behind it.
if admitted < asked then
  for i = 1, #plans do
    local p = plans[i]
    local used = p.used + admitted * cost
    if used + cost > p.limit then
      p.retry = -1
      if cost <= p.limit then
        local leaves = p.oldest or p.now -- of a fixed window all leave together
        local need = used + cost - p.limit -- so many must age out first
        if not p.fixed and need > 1 then
          leaves = need > p.used and p.now or tonumber(redis.call('LINDEX', p.log, p.base + need - 1))
        end
        p.retry = ceil((leaves + p.w - time) / 1000)
      end
    end
  end
end

-- Phase 2 charges all, and only what all admit.
local charge = admitted * cost
reply[3] = admitted
for i = 1, #plans do
  local p = plans[i]
  if charge > 0 then
    if p.fixed then
      if p.used == 0 then p.oldest = p.now end
      p.used = p.used + charge
      redis.call('SET', p.log, text(p.oldest) .. ' ' .. text(p.used), 'PX', ceil((p.now + p.w - time) / 1000))
    else
      if p.used == 0 then
        if p.base > 0 then redis.call('DEL', p.log) end
        p.oldest = p.now
      elseif p.base == 1 then redis.call('LPOP', p.log)
      elseif p.base > 1 then redis.call('LTRIM', p.log, p.base, -1) end
      local stamp = text(p.now)
      if charge == 1 then redis.call('RPUSH', p.log, stamp)
      else
        local stamps = {}
        for j = 1, charge do stamps[j] = stamp end
        append(p.log, stamps)
      end
      redis.call('PEXPIRE', p.log, ceil((p.now + p.w - time) / 1000))
      p.used = p.used + charge
    end
  end
  reply[#reply + 1] = math.max(p.limit - p.used, 0)
  reply[#reply + 1] = ceil(((p.oldest or time) + p.w - time) / 1000)
  reply[#reply + 1] = p.retry or 0
end
if admitted < asked then reply[1] = 0 end

if versioned and charge > 0 then -- the left side of the usage balance, booked in the minute of this clock
  local counter = KEYS[2] .. ':' .. text(floor(time / 60000000))
  if redis.call('HINCRBY', counter, ARGV[9], admitted) == admitted then redis.call('EXPIRE', counter, 172800) end
end
return reply
`)
