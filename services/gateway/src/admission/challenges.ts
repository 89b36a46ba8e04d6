import type { Carrier } from '@keygate/api-catalog'
import type { RefusalCode } from '../errors.ts'
import type { Target } from '../routing/target.ts'
import { distinct } from './carriers.ts'

/**
 * What a 401 asks for: a challenge that applies where it was asked (RFC 9110 section 11.6.1), made of what the operation takes, else of what its
 * API takes. It depends on the operation alone, so that all refusals there stay one.
 *
 * Basic by RFC 7617 section 2. For a header no scheme is registered: `ApiKey` names it. For a bearer token RFC 6750 section 3; where
 * it is all that is missing, nothing else is asked for.
 * @param realm without quotes and backslashes.
 * @param offered what can be sent where the target is none of the catalogue's.
 */
export function challengeOf (code: RefusalCode, target: Target | null, realm: string, offered: readonly Carrier[] = []): string {
  const bearer = `Bearer realm="${realm}"`
  if (code === 'bearer_missing') return bearer
  const carriers = target === null ? offered : carriersAt(target)
  const headers = carriers.flatMap(carrier => carrier.kind === 'header' ? [`ApiKey realm="${realm}", header="${carrier.name}"`] : [])
  // Basic alone where it is taken: it suffices, and many clients read no further than one challenge.
  const ways = carriers.length === 0 || headers.length < carriers.length ? [`Basic realm="${realm}", charset="UTF-8"`] : headers
  const passesBearer = target?.kind === 'operation' && target.operation.offersBearer && target.api.otherSchemes === 'forward'
  return [...ways, ...passesBearer ? [bearer] : []].join(', ')
}

function carriersAt (target: Target): readonly Carrier[] {
  const requirements = target.kind === 'operation' ? target.operation.requirements : []
  return requirements.length > 0 ? distinct(requirements.map(({ carrier }) => carrier)) : target.api.carriers
}
