import type { Api, Carrier } from '@keygate/api-catalog'
import { isBasic } from '../admission/credentials.ts'
import type { OurSecrets } from '../admission/our-secrets.ts'
import { hopByHop } from './hop-by-hop.ts'

/** What an upstream may believe because only the gateway writes it: a client's own are dropped (GX-08). */
const identity = /^(?:x-keygate-|x-forward(?:ed|er)?-|x-consumer-|x-credential-|x-user-)|^(?:forwarded|x-forwarded|x-real-ip|x-request-id|via|traceparent|tracestate)$/

/** By these some frameworks do another thing than the method and target say, which are what was judged. */
const overrides = /^x-(?:original|rewrite)-|^x-(?:http-)?method(?:-override)?$/

/** Names under which credentials are passed around beside the standard one, such as `X-Forwarded-Authorization`. */
const likeAuthorization = /authorization/

/** A client's field by its name alone. */
interface Field {
  /** In lower case. */
  name: string
  /** `stays`: it never goes on. Else what its value is looked at for, beside an issued secret, which every value is. */
  kind: 'stays' | 'plain' | 'authorization' | 'carrier'
}

/** Most names that are remembered, and how long each may be: clients choose them. */
const knownAtMost = 1000
const longestKnown = 64

/** Which of a client's fields go on to an API's upstream. Made once per API: names are worked out once each. */
export class PassedFields {
  readonly #secrets: OurSecrets
  readonly #own: ReadonlySet<string>
  readonly #carriers: ReadonlySet<string>
  readonly #known = new Map<string, Field>()

  /** @param all in what any API of the catalogue takes keys: a client may send a key where another API wants it. */
  constructor ({ carriers }: Pick<Api, 'carriers'>, all: readonly Carrier[], secrets: OurSecrets) {
    this.#secrets = secrets
    this.#own = headers(carriers)
    this.#carriers = headers(all)
  }

  /** @param written the name as it came. */
  field (written: string): Field {
    const known = this.#known.get(written)
    if (known !== undefined) return known
    const name = written.toLowerCase()
    const field = { name, kind: this.#kindOf(name) }
    if (this.#known.size < knownAtMost && written.length <= longestKnown) this.#known.set(written, field)
    return field
  }

  /** @param ownsBasic every Basic is meant for us: the operation takes keys. */
  passes ({ name, kind }: Field, value: string, ownsBasic: boolean): boolean {
    if (kind === 'stays' || this.#secrets.isInField(value)) return false
    if (kind === 'plain') return true
    if (kind === 'carrier') return !this.#secrets.isCarriedBy(value)
    return !(ownsBasic && name === 'authorization' && isBasic(value)) && !this.#secrets.isInBasic(value)
  }

  /**
   * Whether a secret of ours is where nobody looks for a key: in a field that would go on but for it. A plain Basic is left to the proxy
   * that asks, which drops every one.
   */
  hasAstray (rawHeaders: string[]): boolean {
    for (let i = 0; i < rawHeaders.length; i += 2) {
      const field = this.field(rawHeaders[i] as string)
      const value = rawHeaders[i + 1] as string
      if (field.kind !== 'stays' && field.kind !== 'carrier' && !(field.name === 'authorization' && isBasic(value)) && !this.passes(field, value, false)) return true
    }
    return false
  }

  /** A text that the gateway itself sends on for the client, such as its `Host`. */
  mayPass (value: string): boolean {
    return !this.#secrets.isInField(value)
  }

  #kindOf (name: string): Field['kind'] {
    // Names with `_` are read as with `-` by CGI-like servers.
    if (hopByHop.has(name) || this.#own.has(name) || name.includes('_') || identity.test(name) || overrides.test(name)) return 'stays'
    if (this.#carriers.has(name)) return 'carrier'
    return likeAuthorization.test(name) ? 'authorization' : 'plain'
  }
}

function headers (carriers: readonly Carrier[]): Set<string> {
  return new Set(carriers.flatMap(carrier => carrier.kind === 'header' ? [carrier.name] : []))
}
