import { Redis } from 'ioredis'
import { LocalError, messageOf } from './local-error.ts'

/** Makes sure that a Redis which the user names answers. Throws `LocalError` without showing the password in the URL. */
export async function checkRedisUrl (url: string): Promise<void> {
  const shown = hidePassword(url)
  const redis = new Redis(url, { lazyConnect: true, retryStrategy: () => null, maxRetriesPerRequest: 0, connectTimeout: 5_000 })
  redis.on('error', () => {}) // told by connect()
  try {
    await redis.connect()
    await redis.ping()
  } catch (error) {
    throw new LocalError(`REDIS_URL is set, but ${shown} does not answer (${messageOf(error)}).\nStart that Redis, or unset REDIS_URL: then Keygate starts one of its own.`)
  } finally {
    redis.disconnect()
  }
}

function hidePassword (url: string): string {
  if (!URL.canParse(url)) throw new LocalError('REDIS_URL is not a URL. It looks like redis://127.0.0.1:6379')
  const parsed = new URL(url)
  if (!/^rediss?:$/.test(parsed.protocol)) throw new LocalError(`REDIS_URL must begin with redis:// or rediss://, not ${parsed.protocol}//`)
  if (parsed.password !== '') parsed.password = '...'
  return parsed.href
}
