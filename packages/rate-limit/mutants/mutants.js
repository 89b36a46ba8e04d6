/**
 * Each mutant is one mistake that a limiter can have (limiter.md 7.3, and those of our own protocol), made in our source.
 *
 * `edits` are [file, text, text instead]; a text must stand in the file exactly once. `tests` must fail, one of them at least;
 * they run in this order until one does. `as` says which mistake of another limiter it stands for, where ours has another shape.
 */
const script = 'src/decide-script.ts'
const lua = (name, tests, ...edits) => ({ name: `script: ${name}`, tests, edits: edits.map(edit => [script, ...edit]) })
const memory = (name, file, from, to, tests = ['stores', 'memory-store', 'properties', 'properties-time']) => ({ name: `memory: ${name}`, tests, edits: [[file, from, to]] })
const on = (name, tests, ...edits) => ({ name, tests, edits })

const examples = ['stores', 'properties']
const time = ['stores', 'properties-time']
const redis = ['properties-redis']
const protocol = ['decide']

const pexpire = "      redis.call('PEXPIRE', p.log, ceil((p.now + p.w - time) / 1000))\n"
const fresh = "randomBytes(16).toString('base64url')"

export const mutants = [
  lua('> becomes >= at every cut', examples, ['if last <= cut then', 'if last < cut then'], ['elseif oldest <= cut then', 'elseif oldest < cut then'], ['if value > cut then', 'if value >= cut then'], ['if v > cut then', 'if v >= cut then']),
  lua('> becomes >= at the last entry', examples, ['if last <= cut then', 'if last < cut then']),
  lua('> becomes >= at the oldest entry', examples, ['elseif oldest <= cut then', 'elseif oldest < cut then']),
  lua('> becomes >= while galloping', examples, ['if value > cut then', 'if value >= cut then']),
  lua('> becomes >= while halving', examples, ['if v > cut then', 'if v >= cut then']),
  lua('a fixed window is a microsecond longer', examples, ['if now - start < w then', 'if now - start <= w then']),
  lua('Retry-After rounded down', examples, ['retry = ceil(', 'retry = floor(']),
  lua('reset rounded down', examples, ['= ceil(((p.oldest or time)', '= floor(((p.oldest or time)']),
  lua('no PEXPIRE', redis, [pexpire, '']),
  lua('PEXPIRE only with the first entry', ['decide', 'properties-redis'], [pexpire, `      if p.used == 0 then\n${pexpire}      end\n`]),
  lua('no expiry of a fixed window', redis, [", 'PX', ceil((p.now + p.w - time) / 1000))", ')']),
  lua('no guard against a clock that steps back', time, ['if last > now then', 'if false then']),
  lua('no guard for a fixed window', time, ['if start > now then', 'if false then']),
  lua('a small step back re-dates', time, ['if last - now > w then', 'if true then']),
  lua('a large step back holds the clock', time, ['if last - now > w then', 'if false then']),
  lua('a large step back holds a fixed window', time, ['if start - now > w then', 'if false then']),
  lua('a small step back is not held', ['properties-time'], ['else now = last end -- by a little', 'end -- by a little']),
  lua('a small step back of a fixed window is not held', ['properties-time'], ['else now = start end -- by a little', 'end -- by a little']),
  lua('the expiry of a held log is counted from the clock', ['properties-time'], [pexpire, "      redis.call('PEXPIRE', p.log, ceil(p.w / 1000))\n"]),
  lua('waits told from the held clock', time, ['retry = ceil((leaves + w - time)', 'retry = ceil((leaves + w - now)']),
  lua('LTRIM one too many', examples, ["redis.call('LTRIM', p.log, p.base, -1)", "redis.call('LTRIM', p.log, p.base + 1, -1)"]),
  // One too few leaves a dead entry, which is judged as dead again: only what is kept in Redis shows it.
  lua('LTRIM one too few', ['decide'], ["redis.call('LTRIM', p.log, p.base, -1)", "redis.call('LTRIM', p.log, p.base - 1, -1)"]),
  lua('a look prunes', redis, ['base, used, oldest = high, used - high, value', "redis.call('LTRIM', log, high, -1)\n        base, used, oldest = 0, used - high, value"]),
  lua('dead entries forgotten in the wait (need - 1 without base)', examples, ['base + need - 1', 'need - 1']),
  lua('the wait is of one entry too early', examples, ['base + need - 1', 'base + need - 2']),
  lua("now .. '' as stamp", examples, ['local stamp = text(p.now)', "local stamp = p.now .. ''"]),
  lua('denials are recorded', examples, ['if admits and cost > 0 then', 'if cost > 0 then']),
  lua('not all or nothing', examples, ['if admits and cost > 0 then', 'if p.retry == 0 and cost > 0 then']),
  lua('a look can be limited', examples, ['if cost > 0 and used + cost > limit then', 'if used + cost >= limit + (cost > 0 and 1 or 0) then']),
  lua('the limit is one higher', ['stores', 'concurrency'], ['used + cost > limit then', 'used + cost > limit + 1 then']),
  on("read TIME in the gateway: the store sends its process's clock", redis, ['src/redis-store.ts', "this.#nowMicros?.() ?? ''", 'this.#nowMicros?.() ?? Date.now() * 1000']),
  lua('reset from PTTL', examples, ['ceil(((p.oldest or time) + p.w - time) / 1000)', "math.max(redis.call('PTTL', p.log), 1)"]),
  on('skipOnError: a failure is an admission with the full quota', protocol, ['src/redis-store.ts', 'keys, args, stillValid)', 'keys, args, stillValid).catch(() => [1, 0, ...limits.flatMap(({ policy }) => [policy.limit, 0, 0])])']),
  on('a call without an answer is sent again', protocol,
    ['src/script.ts', '  return await connection.call(client =>', '  const send = async (): Promise<unknown> => await connection.call(client =>'],
    ['src/script.ts', '  }))\n}', '  }))\n  return await send().catch(async (error: Error) => { if (!error.message.includes(\'no reply\')) throw error; return await send() })\n}']),
  on('the connection may be another one by the time of the call', protocol, ['src/script.ts', 'if (!stillValid()) return undefined', '']),
  lua('#!lua left out', redis, ['defineScript(`#!lua\n', 'defineScript(`\n']),

  lua('the key\'s version is not compared', protocol, ['if key ~= keySeen or project ~= projectSeen then', 'if not key or project ~= projectSeen then']),
  lua('the project\'s version is not compared', protocol, ['if key ~= keySeen or project ~= projectSeen then', 'if key ~= keySeen or not project then']),
  lua('a version that is not there passes', protocol, ['if key ~= keySeen or project ~= projectSeen then', 'if (key or keySeen) ~= keySeen or (project or projectSeen) ~= projectSeen then']),
  lua('any newer record passes', protocol, ['if key ~= keySeen or project ~= projectSeen then', 'if (key or 0) > keySeen or (project or 0) > projectSeen or not key then']),
  lua('any fence raises', protocol, ['if ARGV[5] == incarnation then', "if ARGV[5] ~= '' then"]),
  lua('every call raises', protocol, ['if ARGV[5] == incarnation then', 'if true then']),
  lua('no fence raises', protocol, ['if ARGV[5] == incarnation then', 'if false then']),
  lua('a fence lowers the key\'s version', protocol, ['if not key or key < keySeen then', 'if true then']),
  lua('a fence lowers the project\'s version', protocol, ['if not project or project < projectSeen then', 'if true then']),
  lua('an empty memory stays without a name', protocol, ["    redis.call('HSET', hash, '#', incarnation)\n", '']),
  on('a constant # in decide', protocol, ['src/redis-store.ts', fresh, "'AAAAAAAAAAAAAAAAAAAAAA'"], ['src/redis-store.ts', "import { randomBytes } from 'node:crypto'\n", '']),
  on('one # per process in decide', protocol, ['src/redis-store.ts', `'' : ${fresh}`, "'' : mine"], ['src/redis-store.ts', '/** Options that only tests set. */', `const mine = ${fresh}\n`]),
  on('a constant # in raise', protocol, ['src/versions.ts', fresh, "'AAAAAAAAAAAAAAAAAAAAAA'"], ['src/versions.ts', "import { randomBytes } from 'node:crypto'\n", '']),
  on('a late delivery lowers a version', protocol, ['src/versions.ts', 'if not stored or stored < tonumber(ARGV[i + 1]) then', 'if true then']),
  on('versions expire', protocol, ['src/versions.ts', 'return 1\n', "redis.call('EXPIRE', KEYS[1], 86400)\nreturn 1\n"]),
  on('a record of an older connection is sent', protocol, ['src/redis-store.ts', 'versions.generation === this.#connection.generation', 'versions.generation <= this.#connection.generation']),
  lua('not expired at its very end', examples, ['if notAfter and time >= notAfter * 1000 then', 'if notAfter and time > notAfter * 1000 then']),
  lua('expired a millisecond late', examples, ['time >= notAfter * 1000', 'time >= (notAfter + 1) * 1000']),
  lua('never expired', examples, ['if notAfter and time', 'if false and time']),
  lua('looks in the balance', protocol, ['if versioned and cost > 0 then', 'if versioned then']),
  on('seconds of a header rounded down', ['headers'], ['src/headers.ts', 'Math.ceil(ms / 1000)', 'Math.floor(ms / 1000)']),

  memory('> becomes >= at the cut', 'src/stamps.ts', 'if (this.at(middle) > moment)', 'if (this.at(middle) >= moment)'),
  memory('a fixed window is a microsecond longer', 'src/window.ts', 'log.start > cut ?', 'log.start >= cut ?'),
  memory('Retry-After rounded down', 'src/window.ts', 'Math.ceil((leaving(', 'Math.floor((leaving('),
  memory('reset rounded down', 'src/window.ts', 'Math.ceil(((oldest', 'Math.floor(((oldest'),
  memory('no guard against a clock that steps back', 'src/window.ts', 'if (last <= time) return', 'if (last <= time || last > 0) return'),
  memory('a large step back holds the clock', 'src/window.ts', 'return last - time > windowMicros ?', 'return last - time > Infinity ?'),
  memory('not all or nothing', 'src/memory-store.ts', "if (!judged.every(j => j.judgement.admits)) return combine('limited', nowMs, judged.map(j => decisionOf(j, j.judgement.oldest, 0, time)))", "if (!judged.every(j => j.judgement.admits)) return combine('limited', nowMs, judged.map(j => decisionOf(j, j.judgement.admits ? this.#charge(j, cost) : j.judgement.oldest, 0, time)))"),
  memory('denials are recorded', 'src/memory-store.ts', "if (!judged.every(j => j.judgement.admits)) return combine('limited', nowMs, judged.map(j => decisionOf(j, j.judgement.oldest, 0, time)))", "if (!judged.every(j => j.judgement.admits)) return combine('limited', nowMs, judged.map(j => decisionOf(j, this.#charge(j, cost), 0, time)))"),
  memory('not expired at its very end', 'src/memory-store.ts', 'time >= notAfterMs * 1000', 'time > notAfterMs * 1000'),
  memory('the share is not looked at', 'src/memory-store.ts', 'limitOf(limitedBy.policy), cost', 'limitedBy.policy.limit, cost'),
  memory('a log that counts is evicted', 'src/subjects.ts', 'if (endOf(subject.log) > time) break', ''),
  memory('a request\'s own logs make room', 'src/subjects.ts', 'if (!kept.includes(subject)) this', 'this'),
  memory('the queue is in order of first use', 'src/subjects.ts', 'if (end === subject.end) return', 'if (subject.end > 0) return'),
  memory('no bound of subjects', 'src/subjects.ts', 'return this.#free >= count', 'return true'),
  memory('notes are kept without bound', 'src/window.ts', 'else if (log.stamps.length > share)', 'else if (log.stamps.length > share * 1000)'),
  memory('a log keeps what is dead', 'src/window.ts', 'if (dead > 0) log.stamps.drop(dead)', '')
]
