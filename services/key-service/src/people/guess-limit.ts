import { Limiter, MemoryStore, RedisStore, StoreUnavailableError, addressTag, hashAddress, logKey, type LimitedBy, type Policy, type RedisConnection } from '@keygate/rate-limit'
import { tooManyGuesses } from '../errors.ts'
import { networkOf } from './network.ts'

/** Whose password is guessed from where. `account` null: a link's token, which belongs to nobody known. */
export interface Guess { address: string, account: string | null }

export interface GuessLimit {
  /**
   * Refuses whoever may not guess now, before anything is done for them, and counts nothing.
   *
   * @param onLimited called for the first refusal of a window, over all processes.
   * @throws {ProblemError} 429: too many were wrong.
   */
  check: (guess: Guess, onLimited: () => Promise<void>) => Promise<void>
  /**
   * Does the comparison if there may be one. `work` resolves with undefined when the guess was wrong; only that is counted.
   * So nothing may be in it that can fail for another reason: a fault would count as a wrong guess.
   *
   * @param onLimited called for the first refusal of a window, over all processes.
   * @throws {ProblemError} 429: too many were wrong.
   */
  attempt: <T>(guess: Guess, work: () => Promise<T | undefined>, onLimited: () => Promise<void>) => Promise<T | undefined>
}

const windowSeconds = 15 * 60
const policyOf = (name: string, limit: number): Policy => ({ name, limit, windowSeconds, algorithm: 'sliding', partition: 'address' })
const policies = { account: policyOf('account', 5), address: policyOf('address', 20), told: policyOf('told', 1) }

/**
 * At most 5 wrong passwords for an account from one address, and 20 wrong ones from an address, in any 15 minutes; counted in the
 * exact window that all processes share, and by each process for itself while Redis is away. By address, so that nobody can lock
 * somebody else out: from another address the right password works.
 *
 * An attempt at an account is charged before it is made, so that a hundred at once are five, and given back when it was right. One
 * address's total is charged when an attempt has failed: those that are right must not count, and the shared window gives nothing
 * back. So beside the 20 there can be as many as are compared at the same time (two per process).
 */
export function createGuessLimit (redis: RedisConnection): GuessLimit {
  const store = new RedisStore(redis)
  const memory = new MemoryStore()
  const limiter = new Limiter({ store, memory, replicas: () => 1 })

  async function forget (limits: LimitedBy[]): Promise<void> {
    await memory.reset(limits)
    await store.reset(limits).catch((error: unknown) => { if (!(error instanceof StoreUnavailableError)) throw error })
  }

  /** @returns for how long nothing is left, in milliseconds; 0: something is. */
  async function usedUpMs (limit: LimitedBy): Promise<number> {
    const now = await limiter.decideAnyway({ cost: 0, limits: [limit] })
    return 'resetMs' in now && now.remaining === 0 ? now.resetMs : 0
  }

  async function chargedOrMs (limit: LimitedBy): Promise<number> {
    const own = await limiter.decideAnyway({ cost: 1, limits: [limit] })
    return own.outcome === 'limited' ? own.retryAfterMs : 0
  }

  async function refuse ({ address, account }: Guess, blockedMs: number, onLimited: () => Promise<void>): Promise<void> {
    if (blockedMs === 0) return
    const network = networkOf(address)
    const told = await limiter.decideAnyway({ cost: 1, limits: [limitOf(policies.told, network, JSON.stringify([network, account]))] })
    if (told.outcome === 'admitted') await onLimited()
    throw tooManyGuesses(blockedMs)
  }

  return {
    check: async (guess, onLimited) => {
      const { ofAddress, ofAccount } = limitsOf(guess)
      await refuse(guess, await usedUpMs(ofAddress) || (ofAccount === undefined ? 0 : await usedUpMs(ofAccount)), onLimited)
    },
    attempt: async (guess, work, onLimited) => {
      const { ofAddress, ofAccount } = limitsOf(guess)
      await refuse(guess, await usedUpMs(ofAddress) || (ofAccount === undefined ? 0 : await chargedOrMs(ofAccount)), onLimited)
      const result = await work()
      if (result === undefined) await limiter.decideAnyway({ cost: 1, limits: [ofAddress] })
      else if (ofAccount !== undefined) await forget([ofAccount])
      return result
    }
  }
}

function limitsOf ({ address, account }: Guess): { ofAddress: LimitedBy, ofAccount: LimitedBy | undefined } {
  const network = networkOf(address)
  return {
    ofAddress: limitOf(policies.address, network, network),
    ofAccount: account === null ? undefined : limitOf(policies.account, network, JSON.stringify([network, account]))
  }
}

/** Neither address nor account stands in Redis: only hashes of them do. */
function limitOf (policy: Policy, network: string, subject: string): LimitedBy {
  return { policy, log: logKey(addressTag(hashAddress(network)), { kind: 'api', api: 'sign-in' }, { kind: 'address', addressHash: hashAddress(subject) }, policy) }
}
