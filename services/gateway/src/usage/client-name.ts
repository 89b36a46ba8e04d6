/** One product of a User-Agent (RFC 9110 section 10.1.5), such as `curl/8.5.0`. */
const product = /^[\w!#$%&'*+.^`|~-]+(?:\/[\w!#$%&'*+.^`|~-]+)?/

const longestName = 64
/** Names that are remembered, and how long a User-Agent may be for that: clients choose them, so both are bounded. */
const remembered = 1000
const longestRemembered = 512

/**
 * What clients call themselves: the first product of a User-Agent; empty when there is none, or when it is `unfit` to be written down. What
 * was told is remembered, since few clients send most requests.
 */
export function clientNames (unfit: (text: string) => boolean): (userAgent: string | undefined) => string {
  const known = new Map<string, string>()
  return userAgent => {
    if (userAgent === undefined) return ''
    const name = known.get(userAgent)
    if (name !== undefined) return name
    const found = product.exec(userAgent)?.[0].slice(0, longestName) ?? ''
    const fit = found === '' || unfit(userAgent) ? '' : found
    if (userAgent.length > longestRemembered) return fit
    if (known.size >= remembered) known.clear()
    known.set(userAgent, fit)
    return fit
  }
}
