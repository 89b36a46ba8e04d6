import type { Catalogue } from '@keygate/api-catalog'
import type { Config } from '../config.ts'
import { hostFault } from '../proxy/addresses.ts'

/** Upstreams of a catalogue that this gateway may not call, each with its place and the remedy. Names are judged when they are looked up. */
export function upstreamFaults ({ KEYGATE_ALLOW_PRIVATE_UPSTREAM: allowsPrivate }: Pick<Config, 'KEYGATE_ALLOW_PRIVATE_UPSTREAM'>): (catalogue: Catalogue) => string[] {
  return ({ apis }) => apis.flatMap(({ name, upstream, upstreamPlace }) => {
    const fault = hostFault(new URL(upstream), { allowsPrivate })
    if (fault === undefined) return []
    const remedy = fault.endsWith('private') ? 'Set KEYGATE_ALLOW_PRIVATE_UPSTREAM=true, or name a public one.' : 'Name another.'
    return [`${upstreamPlace}: the upstream of ${JSON.stringify(name)} may not be called: ${fault}. ${remedy}`]
  })
}
